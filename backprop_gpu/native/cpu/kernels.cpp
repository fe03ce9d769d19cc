// Every kernel of one instruction set, by name. Compiled once per set (-DKERNELS names the table), with nothing in it
// that another translation unit could take for its own: everything is in anonymous namespaces, and no standard library
// header is included.
#include "../formulas/formula_ids.h"
#include "batches.h"
#include "flat.h"
#include "input_stage.h"
#include "kernels.h"
#include "layers.h"
#include "members.h"
#include "normalization.h"
#include "outputs.h"
#include "parametric.h"
#include "periodic.h"

namespace {

static_assert(GEMM_WORKSPACE_BYTES <= WORKSPACE_BYTES);

#define KERNEL(name, ...) {name, &__VA_ARGS__}
#define BOTH(name, kernel) KERNEL(name "_float32", kernel<float>), KERNEL(name "_float64", kernel<double>)
#define BOTH_OF(name, kernel, ...) \
    KERNEL(name "_float32", kernel<float, __VA_ARGS__>), KERNEL(name "_float64", kernel<double, __VA_ARGS__>)

// Where the output gives the derivative, it is saved for dropout alone; else always.
#define FROM_INPUT(name, G) \
    BOTH_OF("dense_" #name, dense, activations::G, false), BOTH_OF("dense_" #name "_saves", dense, activations::G, true), \
    BOTH_OF("activate_" #name, activate, activations::G, false), BOTH_OF("activate_" #name "_saves", activate, activations::G, true), \
    BOTH_OF("parametric_" #name, parametric_forward, activations::G),
#define FROM_OUTPUT(name, G) FROM_INPUT(name, G) BOTH_OF("dense_vjp_input_" #name, dense_vjp_input, activations::G),
#define LOSS(name, L) BOTH_OF("output_delta_" #name, output_delta, Separate<losses::L>),
#define OPTIMIZER(name, O) BOTH_OF("update_" #name, update, optimizers::O),

void gather_words(const Word* row) { gather<Word>(row); }

const Kernel kernels[] = {
    ACTIVATIONS_FROM_OUTPUT(FROM_OUTPUT) ACTIVATIONS_FROM_INPUT(FROM_INPUT) LOSSES(LOSS) OPTIMIZERS(OPTIMIZER)
    BOTH("dense_vjp_input_saved", dense_vjp_input_saved), BOTH_OF("dense_vjp_input_dropped", dense_vjp_input_dropped, false),
    BOTH_OF("dense_vjp_input_dropped_relu", dense_vjp_input_dropped, true),
    BOTH("row_sums", row_sums), BOTH("dense_vjp_params", dense_vjp_params), BOTH("drop", drop),
    BOTH("batch_norm", batch_norm), BOTH("batch_norm_inference", batch_norm_inference), BOTH("batch_norm_vjp", batch_norm_vjp),
    BOTH("member_weights", member_weights), BOTH("member_weights_vjp", member_weights_vjp),
    BOTH("member_outputs_vjp", member_outputs_vjp),
    BOTH("parametric_vjp", parametric_vjp), BOTH("scaling_vjp", scaling_vjp), BOTH("scaling", scaling_forward),
    BOTH("periodic_vjp", periodic_vjp), BOTH("periodic", periodic_forward),
    BOTH_OF("output_delta_categorical_cross_entropy", output_delta, Softmaxes<false>),
    BOTH_OF("output_delta_categorical_cross_entropy_labels", output_delta, Softmaxes<true>),
    BOTH_OF("output_delta_grouped_cross_entropy", output_delta, Softmaxes<false>),
    BOTH("output_sums", output_sums),
    BOTH("average", average), BOTH("penalty", penalty), BOTH("penalty_value", penalty_value), BOTH("squares", squares),
    BOTH("global_norm", global_norm), BOTH("gather", gather), {"gather_int64", &gather_words}, BOTH("advance", advance),
    {nullptr, nullptr},
};

}  // namespace

const Kernel* KERNELS() { return kernels; }
