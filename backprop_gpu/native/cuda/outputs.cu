// The last layer: dZ[L] and the cost from the logits, in one sweep.
#include "../formulas/formula_ids.h"
#include "../formulas/losses.h"
#include "blocks.h"

// An example's outputs are shared by ``group`` lanes of one warp, a power of two; every lane takes part. With one lane the
// sums over outputs are in the CPU's order.
__device__ inline real group_sum(real x, integer group) {
    for (int far = int(group) / 2; far; far /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, far);
    return x;
}

__device__ inline real group_maximum(real x, integer group) {
    for (int far = int(group) / 2; far; far /= 2) x = maximum(x, __shfl_xor_sync(0xFFFFFFFFu, x, far));
    return x;
}

// Columns of numbers, or class labels (1, m).
struct Targets {
    const void* at;
    integer unit, example, labels;
    __device__ real operator()(integer u, integer e, real rest, real smooth) const {
        const real y = labels ? real(((const integer*)at)[e * example] == u) : ((const real*)at)[u * unit + e * example];
        return rest * y + smooth;
    }
};

// One example, and which of its outputs are this lane's: lane, lane + group, ...
struct Example {
    Matrix<const real> Z;
    Targets Y;
    Matrix<real> dZ;
    integer e, lane, group;
};

// dZ <- dL/dZ, loss += this lane's part of L, of a loss whose outputs stand alone.
template <class Loss>
__device__ inline void separate(const Example& x, integer n, const real* parameters, integer n_parameters, real& loss) {
    const real share = Loss::AVERAGED ? real(1) / real(n) : real(1);
    for (integer u = x.lane; u < n; u += x.group) {
        const real *pair = parameters + (n_parameters > 1 ? 2 * (u % n_parameters) : 0), p = pair[0], rest = pair[1];
        // Binary labels may be smoothed: T = (1 - p) Y + p/2.
        const real t = Loss::AVERAGED ? x.Y(u, x.e, real(1), real(0)) : x.Y(u, x.e, rest, real(0.5) * p), z = x.Z(u, x.e);
        x.dZ(u, x.e) = share * Loss::delta(z, t, p, rest);
        loss += share * Loss::value(z, t, p, rest);
    }
}

// dZ <- AL sum_k T - T and loss += sum_k T (log sum_j e^S - S), S = Z - max Z, of the softmax over outputs first ... end.
__device__ inline void softmax(const Example& x, integer first, integer end, const real* parameters, real& loss) {
    const real rest = parameters[1], smooth = parameters[0] / real(end - first);
    real highest = x.Z(first + x.lane < end ? first + x.lane : first, x.e), total = 0, targets = 0;
    for (integer u = first + x.lane; u < end; u += x.group) highest = maximum(highest, x.Z(u, x.e));
    highest = group_maximum(highest, x.group);
    for (integer u = first + x.lane; u < end; u += x.group) {
        const real power = elementary::exp_not_positive(x.Z(u, x.e) - highest);
        x.dZ(u, x.e) = power;
        total += power;
        targets += x.Y(u, x.e, rest, smooth);
    }
    total = group_sum(total, x.group);
    targets = group_sum(targets, x.group);
    if (x.lane == 0) loss += targets * elementary::log(total);
    const real share = targets / total;
    for (integer u = first + x.lane; u < end; u += x.group) {
        const real t = x.Y(u, x.e, rest, smooth);
        x.dZ(u, x.e) = x.dZ(u, x.e) * share - t;
        loss -= t * (x.Z(u, x.e) - highest);
    }
}

#define SEPARATE(name, Loss) \
    case name##_id: separate<losses::Loss>(x, outputs, parameters, n_parameters, loss); break;

// dZ <- w dL/dZ (times 1/D if early);  value += (1/D) sum of w L. An example of weight 0 contributes 0 whatever it holds.
// parameters: of the loss, p and 1 - p, for each of several outputs in turn. groups: sizes of the softmaxes. ``losses`` is
// (m,), ``sums`` (blocks of examples,).
extern "C" __global__ void output_delta(const real* logits, integer logits_unit, integer logits_example,
                                        const void* targets, integer targets_unit, integer targets_example,
                                        integer labels, const real* weights, integer weights_example,
                                        const real* inverse, integer early, integer id, const real* parameters,
                                        integer n_parameters, const integer* groups, integer n_groups, real* delta,
                                        integer delta_unit, integer delta_example, integer n, integer m, integer group,
                                        real* losses, double* sums, unsigned* counter, real* value) {
    const integer lane = threadIdx.x % group, examples = THREADS / group;
    for (integer start = blockIdx.x * examples; start < m; start += gridDim.x * examples) {
        const bool there = start + threadIdx.x / group < m;  // lanes beyond the last example take part in shuffles and write nothing
        const integer e = there ? start + threadIdx.x / group : 0, outputs = there ? n : 0;
        const Example x = {matrix(logits, logits_unit, logits_example), {targets, targets_unit, targets_example, labels},
                           matrix(delta, delta_unit, delta_example), e, lane, group};
        real loss = 0;
        switch (id) {
            LOSSES(SEPARATE)
            default:
                for (integer g = 0, first = 0; g < n_groups; first += groups[g++])
                    softmax(x, there ? first : 0, there ? first + groups[g] : 0, parameters, loss);
        }
        loss = group_sum(loss, group);
        const real w = weights ? weights[e * weights_example] : real(1), factor = early ? w * *inverse : w;
        if (weights || early)
            for (integer u = lane; u < outputs; u += group) x.dZ(u, e) = w != real(0) ? x.dZ(u, e) * factor : real(0);
        if (there && lane == 0) losses[e] = w != real(0) ? loss * w : real(0);
    }
    if (!last_block(counter, gridDim.x)) return;
    const volatile real* each = losses;  // written by other blocks
    const double total = wide_sum(m, sums, [=](integer e) { return double(each[e]); });
    if (threadIdx.x == 0) *value += real(double(*inverse) * total);
}
