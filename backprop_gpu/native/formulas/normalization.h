// Batch normalization, number by number, named as in maths/normalization.py where the sources are. The sums over
// examples are in cpu/normalization.h and cuda/normalization.cu.
#pragma once
#include "real.h"

namespace normalization {
namespace {

constexpr double EPSILON = 1e-5;  // added to the variance
constexpr double MOMENTUM = 0.1;  // share of the newest batch in the running statistics

template <class T> FORMULA T inverse_std(T variance) { return T(1) / sqrt(variance + T(EPSILON)); }

template <class T> FORMULA T affine(T x, T gamma, T beta) { return gamma * x + beta; }

// share: 1/m, or w / sum w. total, along: sums over examples of dU and of dU X.
template <class T> FORMULA T batch_norm_vjp(T dU, T x, T gamma_inverse_std, T share, T total, T along) {
    return gamma_inverse_std * (dU - share * (total + x * along));
}

template <class T> FORMULA T running(T old, T newest) { return old + T(MOMENTUM) * (newest - old); }

}  // namespace
}  // namespace normalization
