// Batch normalization of a layer, unit by unit. One row of blocks: each has its units' examples to itself, since the
// second sum needs the first.
#include "../formulas/normalization.h"
#include "blocks.h"

struct Weights {
    const real* at;  // null: every example counts once
    integer example;
    __device__ real operator()(integer e) const { return at[e * example]; }
    // An example of weight 0 contributes 0 whatever it holds.
    __device__ real times(integer e, real x) const {
        if (!at) return x;
        const real w = (*this)(e);
        return w != real(0) ? x * w : real(0);
    }
};

__device__ inline real total_weight(const SumPosition& p, integer n, integer m, real* partial, const Weights& w) {
    return w.at ? sum_examples(p, n, m, partial, w) : real(m);
}

// X <- (Z - mu) r, inverse_std <- r, running mean and variance, U <- gamma X + beta. ``partial`` is (blocks of examples, n).
extern "C" __global__ void batch_norm(const real* in, integer in_unit, integer in_example, const real* gamma,
                                      const real* beta, const real* weights, integer weights_example, real* mean,
                                      real* variance, real* out, integer out_unit, integer out_example, real* normalized,
                                      integer normalized_unit, integer normalized_example, real* inverse_std, integer n,
                                      integer m, integer width, real* partial) {
    Matrix<const real> Z = matrix(in, in_unit, in_example);
    Matrix<real> U = matrix(out, out_unit, out_example), X = matrix(normalized, normalized_unit, normalized_example);
    const Weights w = {weights, weights_example};
    const SumPosition p = sum_position(width);
    const integer u = p.unit;
    const real total = total_weight(p, n, m, partial, w), least = maximum(total, smallest_normal<real>());
    const real mu = sum_examples(p, n, m, partial, [=](integer e) { return w.times(e, Z(u, e)); }) / least;
    const real var = sum_examples(p, n, m, partial, [=](integer e) {
        real x = Z(u, e) - mu;
        if (w.at && w(e) == real(0)) x = real(0);
        X(u, e) = x;
        return w.times(e, x * x);
    }) / least;
    const real r = normalization::inverse_std(var);
    each_example(p, n, m, [=](integer e) {
        const real x = X(u, e) * r;
        X(u, e) = x;
        U(u, e) = normalization::affine(x, gamma[u], beta[u]);
    });
    if (p.lane || p.group || u >= n) return;
    inverse_std[u] = r;
    if (total > real(0)) {
        mean[u] = normalization::running(mean[u], mu);
        variance[u] = normalization::running(variance[u], var);
    }
}

// U <- gamma (Z - mean) / sqrt(variance + eps) + beta, by the running statistics.
extern "C" __global__ void batch_norm_inference(const real* in, integer in_unit, integer in_example, const real* gamma,
                                                const real* beta, const real* mean, const real* variance, real* out,
                                                integer out_unit, integer out_example, integer n, integer m,
                                                integer width) {
    Matrix<const real> Z = matrix(in, in_unit, in_example);
    Matrix<real> U = matrix(out, out_unit, out_example);
    const Position p = position(width);
    const integer u = p.unit;
    if (u >= n) return;
    const real r = normalization::inverse_std(variance[u]);
    for (integer e = p.example; e < m; e += p.step) U(u, e) = normalization::affine((Z(u, e) - mean[u]) * r, gamma[u], beta[u]);
}

// dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum over examples of dU X.
extern "C" __global__ void batch_norm_vjp(const real* in, integer in_unit, integer in_example, const real* normalized,
                                          integer normalized_unit, integer normalized_example, const real* inverse_std,
                                          const real* gamma, const real* weights, integer weights_example,
                                          const real* scale, real* out, integer out_unit, integer out_example,
                                          real* dgamma, integer accumulate, integer n, integer m, integer width,
                                          real* partial) {
    Matrix<const real> dU = matrix(in, in_unit, in_example), X = matrix(normalized, normalized_unit, normalized_example);
    Matrix<real> dZ = matrix(out, out_unit, out_example);
    const Weights w = {weights, weights_example};
    const SumPosition p = sum_position(width);
    const integer u = p.unit;
    const real least = maximum(total_weight(p, n, m, partial, w), smallest_normal<real>());
    const real total = sum_examples(p, n, m, partial, [=](integer e) { return dU(u, e); });
    const real along = sum_examples(p, n, m, partial, [=](integer e) { return dU(u, e) * X(u, e); });
    each_example(p, n, m, [=](integer e) {
        const real share = w.at ? w(e) / least : real(1) / least;
        dZ(u, e) = normalization::batch_norm_vjp(dU(u, e), X(u, e), gamma[u] * inverse_std[u], share, total, along);
    });
    if (p.lane || p.group || u >= n) return;
    const real term = scalar(scale, real(1)) * along;
    dgamma[u] = accumulate ? dgamma[u] + term : term;
}
