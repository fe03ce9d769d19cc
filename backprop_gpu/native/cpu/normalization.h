// Batch normalization of a layer (maths/normalization.py), unit by unit.
#pragma once
#include "../formulas/normalization.h"
#include "arguments.h"
#include "sums.h"

namespace {

template <class T> INLINE Vector<T> lanes(const T* x, int count) { return count == LANES<T> ? load(x) : load(x, count); }

// sum w x, or sum x without weights: an example of weight 0 contributes 0 whatever it holds.
template <class T> NOINLINE T weighted_sum(const T* x, const T* weights, Word m) {
    if (!weights) return sum(x, m);
    return sum_of<T>(m, [=](Word i, int count) {
        const Vector<T> w = lanes(weights + i, count);
        return w != Vector<T>{} ? lanes(x + i, count) * w : Vector<T>{};
    });
}

template <class T> struct BatchNorm {
    const T *Z, *gamma, *beta, *weights;
    T *mean, *variance, *U, *X, *inverse_std;
    Word n, m;
};

// X <- (Z - mu) r, inverse_std <- r, running mean and variance, U <- gamma X + beta.
template <class T> void batch_norm(const Word* row) {
    const auto& a = read<BatchNorm<T>>(row);
    const T* weights = a.weights;
    const T total = weights ? sum(weights, a.m) : T(a.m), least = maximum(total, smallest_normal<T>());
    for (Word r = 0; r < a.n; ++r) {
        const T* __restrict z = a.Z + r * a.m;
        T *__restrict x = a.X + r * a.m, *__restrict u = a.U + r * a.m, mu = weighted_sum<T>(z, weights, a.m) / least;
        for (Word c = 0; c < a.m; ++c) x[c] = z[c] - mu;
        if (weights)
            for (Word c = 0; c < a.m; ++c) x[c] = weights[c] != T(0) ? x[c] : T(0);
        for (Word c = 0; c < a.m; ++c) u[c] = x[c] * x[c];
        const T variance = weighted_sum<T>(u, weights, a.m) / least, inverse_std = normalization::inverse_std(variance);
        const T gamma = a.gamma[r], beta = a.beta[r];
        for (Word c = 0; c < a.m; ++c) {
            x[c] *= inverse_std;
            u[c] = normalization::affine(x[c], gamma, beta);
        }
        a.inverse_std[r] = inverse_std;
        if (total > T(0)) {
            a.mean[r] = normalization::running(a.mean[r], mu);
            a.variance[r] = normalization::running(a.variance[r], variance);
        }
    }
}

template <class T> struct BatchNormInference {
    const T *Z, *gamma, *beta, *mean, *variance;
    T* U;
    Word n, m;
};

// U <- gamma (Z - mean) / sqrt(variance + eps) + beta, by the running statistics.
template <class T> void batch_norm_inference(const Word* row) {
    const auto& a = read<BatchNormInference<T>>(row);
    for (Word r = 0; r < a.n; ++r) {
        const T inverse_std = normalization::inverse_std(a.variance[r]), mean = a.mean[r], gamma = a.gamma[r], beta = a.beta[r];
        const T* __restrict z = a.Z + r * a.m;
        T* __restrict u = a.U + r * a.m;
        for (Word c = 0; c < a.m; ++c) u[c] = normalization::affine((z[c] - mean) * inverse_std, gamma, beta);
    }
}

template <class T> struct BatchNormVjp {
    const T *dU, *X, *inverse_std, *gamma, *weights, *scale;
    T *dZ, *dgamma;
    Word accumulate, n, m;
};

// dZ <- gamma r (dU - share (sum dU + X sum dU X));  dgamma <- (+) scale * sum over examples of dU X.
template <class T> void batch_norm_vjp(const Word* row) {
    const auto& a = read<BatchNormVjp<T>>(row);
    const T* weights = a.weights;
    const T least = weights ? maximum(sum(weights, a.m), smallest_normal<T>()) : T(a.m);
    for (Word r = 0; r < a.n; ++r) {
        const T *__restrict du = a.dU + r * a.m, *__restrict x = a.X + r * a.m;
        T* __restrict dz = a.dZ + r * a.m;
        const T *d = du, *n = x, total = sum(du, a.m);
        const T along = sum_of<T>(a.m, [=](Word i, int count) { return lanes(d + i, count) * lanes(n + i, count); });
        const T factor = a.gamma[r] * a.inverse_std[r], share = T(1) / least;
        if (weights)
            for (Word c = 0; c < a.m; ++c) dz[c] = normalization::batch_norm_vjp(du[c], x[c], factor, weights[c] / least, total, along);
        else
            for (Word c = 0; c < a.m; ++c) dz[c] = normalization::batch_norm_vjp(du[c], x[c], factor, share, total, along);
        const T term = scalar(a.scale, T(1)) * along;
        a.dgamma[r] = a.accumulate ? a.dgamma[r] + term : term;
    }
}

}  // namespace
