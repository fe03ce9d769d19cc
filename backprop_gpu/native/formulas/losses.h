// Losses from logits, of one output: the term of L and, directly under it, dL/dz, named as in maths/losses.py where the
// sources are. t is the target; p the threshold of huber or the level of quantile, else unused; rest is 1 - p, rounded
// once.
//
// AVERAGED: L is the mean over outputs (regression), else the sum. The softmax losses couple the outputs of an example:
// their sweep over a batch is in cpu/outputs.h.
#pragma once
#include "elementary.h"

namespace losses {
namespace {

struct BinaryCrossEntropy {
    static constexpr bool AVERAGED = false;
    template <class T> static FORMULA T value(T z, T t, T, T) {
        return (maximum(z, T(0)) - z * t) + elementary::log1p_unit(elementary::exp_not_positive(-magnitude(z)));
    }
    template <class T> static FORMULA T delta(T z, T t, T, T) { return elementary::sigmoid(z) - t; }
};

struct SquaredError {
    static constexpr bool AVERAGED = true;
    template <class T> static FORMULA T value(T z, T t, T, T) { return T(0.5) * ((z - t) * (z - t)); }
    template <class T> static FORMULA T delta(T z, T t, T, T) { return z - t; }
};

struct AbsoluteError {
    static constexpr bool AVERAGED = true;
    template <class T> static FORMULA T value(T z, T t, T, T) { return magnitude(z - t); }
    template <class T> static FORMULA T delta(T z, T t, T, T) { return sign(z - t); }
};

struct Huber {
    static constexpr bool AVERAGED = true;
    template <class T> static FORMULA T value(T z, T t, T threshold, T) {
        T size = magnitude(z - t), c = minimum(size, threshold);
        return c * (size - T(0.5) * c);
    }
    template <class T> static FORMULA T delta(T z, T t, T threshold, T) {
        return minimum(maximum(z - t, -threshold), threshold);
    }
};

struct Poisson {
    static constexpr bool AVERAGED = true;
    template <class T> static FORMULA T value(T z, T t, T, T) {
        T entropy = t * elementary::log(maximum(t, smallest_normal<T>())) - t;
        return (elementary::exp(z) - t * z) + entropy;
    }
    template <class T> static FORMULA T delta(T z, T t, T, T) { return elementary::exp(z) - t; }
};

struct Quantile {
    static constexpr bool AVERAGED = true;
    template <class T> static FORMULA T value(T z, T t, T p, T rest) {
        T d = z - t;
        return d > T(0) ? rest * d : -p * d;
    }
    template <class T> static FORMULA T delta(T z, T t, T p, T rest) {
        T d = z - t;
        return d > T(0) ? rest : (d < T(0) ? -p : d);
    }
};

}  // namespace
}  // namespace losses
