// The law of equal bits without Python: small networks are trained by kernels that are called by name, and one hash of all
// weights is compared with the one below. Weights, rows and targets come from integer arithmetic, the steps' scalars from
// multiplications and square roots in float64, so that every machine has the same.
//
// law [instruction set]: prints the hash; 1 if it is another one.
#include <initializer_list>
#include "../formulas/formula_ids.h"
#include "calls.h"

namespace {

constexpr uint64_t EXPECTED = 0x06acd3cf1302e920;
constexpr Word STEPS = 200;

struct Network {
    const char *first, *second;     // activations: the first layer's has dropout behind it, the second's batch norm before it
    const char *loss, *optimizer;
    Word outputs, rows, batch;
    bool weighted;
};

const Network NETWORKS[] = {
    {"relu", "tanh", "categorical_cross_entropy_labels", "sgd", 5, 61, 37, false},
    {"gelu", "leaky_relu", "categorical_cross_entropy", "momentum", 5, 61, 37, true},
    {"silu", "elu", "grouped_cross_entropy", "momentum_average", 5, 61, 37, false},
    {"sigmoid", "softplus", "binary_cross_entropy", "nesterov", 3, 61, 37, true},
    {"gelu_tanh", "identity", "squared_error", "rmsprop", 1, 61, 37, false},
    {"leaky_relu", "relu", "absolute_error", "adagrad", 4, 61, 37, false},
    {"tanh", "gelu", "huber", "adam", 2, 61, 37, true},
    {"softplus", "silu", "poisson", "adamw", 3, 61, 37, false},
    {"elu", "sigmoid", "quantile", "amsgrad", 3, 61, 37, false},
    {"identity", "gelu_tanh", "squared_error", "lion", 2, 61, 37, true},
    {"relu", "gelu", "categorical_cross_entropy_labels", "lion_decaying", 5, 700, 549, true},
};

// Whether the derivative of an activation needs its input, so that the kernels save it.
bool saves(const char* activation) {
#define IS(name, Struct) || !strcmp(activation, #name)
    return false ACTIVATIONS_FROM_INPUT(IS);
}

constexpr Word INPUTS = 7, UNITS1 = 21, UNITS2 = 13, MOST_OUTPUTS = 5, MOST_ROWS = 700;

template <class T> class Training {
    const char* set;
    const Network& x;
    Random random;
    const Word n_weights, n_parameters;
    // W3, W2, W1, b3, b2 (beta), b1, gamma2
    T theta[2048] = {}, grad[2048] = {}, state[3][2048] = {}, average[2048] = {};
    T *W1, *W2, *W3, *b1, *b2, *b3, *gamma;
    T X[MOST_ROWS * INPUTS], Y[MOST_ROWS * MOST_OUTPUTS], weights[MOST_ROWS];
    Word labels[MOST_ROWS], order[MOST_ROWS], batch_labels[MOST_ROWS];
    T batch_X[MOST_ROWS * INPUTS], batch_Y[MOST_ROWS * MOST_OUTPUTS], batch_weights[MOST_ROWS];
    T A1[UNITS1 * MOST_ROWS], D1[UNITS1 * MOST_ROWS], dZ1[UNITS1 * MOST_ROWS];
    T Z2[UNITS2 * MOST_ROWS], A2[UNITS2 * MOST_ROWS], N2[UNITS2 * MOST_ROWS], D2[UNITS2 * MOST_ROWS];
    T dU2[UNITS2 * MOST_ROWS], dZ2[UNITS2 * MOST_ROWS];
    T Z3[MOST_OUTPUTS * MOST_ROWS], dZ3[MOST_OUTPUTS * MOST_ROWS], losses[MOST_ROWS];
    T mean[UNITS2] = {}, variance[UNITS2] = {}, inverse_std[UNITS2], no_bias[UNITS2] = {}, unused[UNITS2];
    uint8_t survives[UNITS1 * MOST_ROWS];
    T scalars[3] = {}, value = 0, norm = 0, factor = 1, table[3], values[STEPS] = {};
    double block_sums[1], block_scales[1], power1 = 1, power2 = 1, total = 0;
    Word counters[2] = {-1, -1};

    void call(const char* name, const Row& arguments) {
        char full[80];
        snprintf(full, sizeof full, "%s_float%d", name, int(8 * sizeof(T)));
        run(kernel_of(set, full), arguments);
    }
    void call(const char* prefix, const char* name, const Row& arguments, const char* suffix = "") {
        char full[64];
        snprintf(full, sizeof full, "%s%s%s", prefix, name, suffix);
        call(full, arguments);
    }
    bool is(const char* optimizer) const { return !strcmp(x.optimizer, optimizer); }

    // Into the table: what this step's optimizer needs beside its constants.
    void step_scalars(double b1, double b2) {
        power1 *= b1, power2 *= b2;
        const bool adaptive = is("adam") || is("adamw") || is("amsgrad");
        const double rate = is("lion") || is("lion_decaying") ? 0x1p-11 : is("rmsprop") ? 0x1p-10 : 0x1p-7;
        table[0] = T(adaptive ? rate / (1 - power1) : rate);
        table[1] = T(is("lion_decaying") ? 1 - rate / 2 : 1 / __builtin_sqrt(1 - power2));
        table[2] = T(1 - rate / 16);
    }
    void gather_batch(Word m, Word stride) {
        const T* at[] = {X, Y, weights};
        T* to[] = {batch_X, batch_Y, batch_weights};
        const Word widths[] = {INPUTS, x.outputs, 1};
        for (int i = 0; i < 3; ++i) call("gather", row(at[i], order, counters, stride, to[i], m, widths[i]));
        run(kernel_of(set, "gather_int64"), row(labels, order, counters, stride, batch_labels, m, 1));
    }
    void forward(Word m) {
        const T parameter = T(0.25), keep = T(4.0 / 3);
        const Word key[] = {0x12345678, 0x0abcdef1, 1, Word(3) << 30}, first = 0;
        call("dense_", x.first, row(W1, 1, batch_X, b1, A1, UNITS1, INPUTS, m, &parameter, D1, m), "_saves");
        call("drop", row(A1, D1, survives, counters + 1, key, &keep, &first, UNITS1, m, m, 0));
        call("dense_identity", row(W2, 0, A1, no_bias, Z2, UNITS2, UNITS1, m, &parameter, nullptr, m));
        const T* w = x.weighted ? batch_weights : nullptr;
        call("batch_norm", row(Z2, gamma, b2, w, mean, variance, A2, N2, inverse_std, UNITS2, m));
        call("activate_", x.second, row(A2, UNITS2, m, &parameter, saves(x.second) ? D2 : nullptr), saves(x.second) ? "_saves" : "");
        call("dense_identity", row(W3, 0, A2, b3, Z3, x.outputs, UNITS2, m, &parameter, nullptr, m));
    }
    void backward(Word m, bool early) {
        const T parameter = T(0.25), inverse = T(1) / T(m), pair[] = {parameter, T(1) - parameter};
        const Word groups[] = {x.outputs == 5 && !strcmp(x.loss, "grouped_cross_entropy") ? 3 : x.outputs, 2};
        const Word n_groups = groups[0] == x.outputs ? 1 : 2;
        const T *w = x.weighted ? batch_weights : nullptr, *late = early ? nullptr : &inverse;
        const void* targets = strstr(x.loss, "labels") ? (const void*)batch_labels : batch_Y;
        const Word n = x.outputs;
        call("output_delta_", x.loss, row(Z3, dZ3, targets, w, &inverse, early, losses, n, m, m, pair, 1, groups, n_groups));
        call("output_sums", row(losses, dZ3, &inverse, early, g(b3), 0, &value, n, m, &total));
        call("dense_vjp_params", row(dZ3, 0, A2, g(W3), n, UNITS2, m, late, 0, UNITS2));
        call("dense_vjp_input_", saves(x.second) ? "saved" : x.second,
             row(W3, dZ3, A2, dU2, g(b2), n, UNITS2, m, &parameter, D2, late, 0, nullptr, UNITS2, m));
        call("batch_norm_vjp", row(dU2, N2, inverse_std, gamma, w, late, dZ2, g(gamma), 0, UNITS2, m));
        call("dense_vjp_params", row(dZ2, 0, A1, g(W2), UNITS2, UNITS1, m, late, 0, UNITS1));
        call("dense_vjp_input_", strcmp(x.first, "relu") ? "dropped" : "dropped_relu",
             row(W2, dZ2, A1, dZ1, nullptr, UNITS2, UNITS1, m, &parameter, D1, nullptr, 0, survives, UNITS1, m));
        call("row_sums", row(dZ1, g(b1), UNITS1, m, late, 0));
        call("dense_vjp_params", row(dZ1, 1, batch_X, g(W1), UNITS1, INPUTS, m, late, 0, INPUTS));
    }
    void take_step(const T* constants) {
        const T l1 = T(0x1p-10), l2 = T(0x1p-8), most = T(0.5), share = T(0.125);
        call("penalty", row(theta, grad, &l1, &l2, block_sums, 0, 1, n_weights));
        call("penalty_value", row(block_sums, 1, &value));
        call("squares", row(grad, block_sums, block_scales, 0, 1, n_parameters));
        call("global_norm", row(block_sums, block_scales, 1, &most, &norm, &factor));
        call("update_", x.optimizer, row(theta, grad, state[0], state[1], state[2], scalars, constants, &factor, n_parameters));
        call("average", row(theta, average, &share, n_parameters));
    }
    T* g(T* parameters) { return grad + (parameters - theta); }

public:
    Training(const char* set, const Network& x, uint64_t seed)
        : set(set), x(x), random(seed), n_weights(x.outputs * UNITS2 + UNITS2 * UNITS1 + UNITS1 * INPUTS),
          n_parameters(n_weights + x.outputs + UNITS2 + UNITS1 + UNITS2) {
        W3 = theta, W2 = W3 + x.outputs * UNITS2, W1 = W2 + UNITS2 * UNITS1;
        b3 = theta + n_weights, b2 = b3 + x.outputs, b1 = b2 + UNITS2, gamma = b1 + UNITS1;
        for (Word i = 0; i < n_parameters; ++i) theta[i] = T(random.number() / 4);
        for (Word i = 0; i < UNITS2; ++i) gamma[i] = T(1);
        for (Word i = 0; i < x.rows * INPUTS; ++i) X[i] = T(random.number());
        for (Word i = 0; i < x.rows * x.outputs; ++i) Y[i] = T(random.below(2));
        for (Word i = 0; i < x.rows; ++i)
            labels[i] = random.below(x.outputs), weights[i] = T(random.below(4)) / 2, order[i] = (i * 29) % x.rows;
    }
    uint64_t hash(uint64_t before) {
        const double b1 = 0.875, b2 = 0.984375;
        const T constants[] = {T(b1), T(1 - b1), T(b2), T(1 - b2), T(0x1p-20)};
        for (Word step = 0; step < STEPS; ++step) {
            const bool tail = step % 2;  // a full batch, and what is left of the rows
            const Word m = tail ? x.rows - x.batch : x.batch;
            step_scalars(b1, b2);
            counters[0] = -1;
            call("advance", row(counters, table, values, scalars, &value, 3));
            counters[0] = tail;
            gather_batch(m, x.batch);
            forward(m);
            backward(m, step % 4 < 2);
            take_step(constants);
        }
        for (Word i = 0; i < n_parameters; ++i)
            if (theta[i] - theta[i] != T(0)) printf("%s is not finite\n", x.optimizer), exit(1);
        for (const T* vector : {theta, average, state[0], state[1], state[2]})
            before = fnv1a(vector, size_t(n_parameters) * sizeof(T), before);
        before = fnv1a(mean, sizeof mean, before), before = fnv1a(variance, sizeof variance, before);
        return fnv1a(&value, sizeof value, before);
    }
};

template <class T> uint64_t train(const char* set, uint64_t hash) {
    uint64_t seed = 1;
    for (const Network& network : NETWORKS) {
        Training<T>* training = new Training<T>(set, network, seed++);
        hash = training->hash(hash);
        delete training;
    }
    return hash;
}

}  // namespace

int main(int count, char** arguments) {
#ifdef __x86_64__
    const char* set = count > 1 ? arguments[1] : "avx2";
#else
    const char* set = count > 1 ? arguments[1] : "neon";
#endif
    if (!backprop_supports(set)) {
        printf("this processor has no %s\n", set);
        return 2;
    }
    const uint64_t hash = train<double>(set, train<float>(set, FNV_START));
    printf("%s: %016llx%s\n", set, (unsigned long long)hash, hash == EXPECTED ? "" : ", which is another hash than expected");
    return hash != EXPECTED;
}
