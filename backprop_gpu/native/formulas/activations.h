// Activations g, each with its vector-Jacobian product dZ = dA g'(Z) directly under it, named as in
// maths/activations.py where the sources are. p is the parameter (slope of leaky_relu, alpha of elu), else unused.
//
// DERIVATIVE_FROM_OUTPUT: vjp(dA, a, p) takes the activation a = g(z); else vjp(dA, z, p) takes the pre-activation.
#pragma once
#include "elementary.h"

namespace activations {
namespace {

struct Identity {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T) { return z; }
    template <class T> static FORMULA T vjp(T dA, T, T) { return dA; }
};

struct Relu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T) { return z <= T(0) ? T(0) : z; }  // NaN stays NaN
    template <class T> static FORMULA T vjp(T dA, T a, T) { return a > T(0) ? dA : T(0); }
};

struct LeakyRelu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T slope) { return z > T(0) ? z : slope * z; }
    template <class T> static FORMULA T vjp(T dA, T a, T slope) { return a > T(0) ? dA : slope * dA; }
};

struct Elu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T alpha) {
        return z > T(0) ? z : alpha * elementary::expm1(minimum(z, T(0)));
    }
    template <class T> static FORMULA T vjp(T dA, T a, T alpha) { return a > T(0) ? dA : dA * (a + alpha); }
};

struct Selu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    static constexpr double LAMBDA = 1.0507009873554805, LAMBDA_ALPHA = 1.7580993408473766;
    template <class T> static FORMULA T forward(T z, T) {
        return z > T(0) ? T(LAMBDA) * z : T(LAMBDA_ALPHA) * elementary::expm1(minimum(z, T(0)));
    }
    template <class T> static FORMULA T vjp(T dA, T a, T) { return a > T(0) ? T(LAMBDA) * dA : dA * (a + T(LAMBDA_ALPHA)); }
};

struct Tanh {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T) { return elementary::tanh(z); }
    template <class T> static FORMULA T vjp(T dA, T a, T) { return dA * (T(1) - a * a); }
};

struct Sigmoid {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T) { return elementary::sigmoid(z); }
    template <class T> static FORMULA T vjp(T dA, T a, T) { return dA * (a * (T(1) - a)); }
};

struct Exponential {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = true;
    template <class T> static FORMULA T forward(T z, T) { return elementary::exp(z); }
    template <class T> static FORMULA T vjp(T dA, T a, T) { return dA * a; }
};

struct Gelu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = false;
    template <class T> static FORMULA T cdf(T z) { return fma(T(0.5), elementary::erf(z * T(0.7071067811865476)), T(0.5)); }
    template <class T> static FORMULA T forward(T z, T) { return z * cdf(z); }
    template <class T> static FORMULA T vjp(T dA, T z, T) {
        T pdf = elementary::exp_not_positive(T(-0.5) * (z * z)) * T(0.3989422804014327);
        return dA * fma(z, pdf, cdf(z));
    }
};

struct GeluTanh {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = false;
    template <class T> static FORMULA T tanh_part(T z) {
        return elementary::tanh(T(0.7978845608028654) * fma(T(0.044715), z * z * z, z));
    }
    template <class T> static FORMULA T forward(T z, T) { return T(0.5) * z * (T(1) + tanh_part(z)); }
    template <class T> static FORMULA T vjp(T dA, T z, T) {
        T t = tanh_part(z), bounded = minimum(maximum(z, T(-100)), T(100));  // the square of a huge z would give 0 * inf
        T slope = T(0.7978845608028654) * fma(T(0.134145), bounded * bounded, T(1));
        return dA * fma(T(0.5) * z * (T(1) - t * t), slope, T(0.5) * (T(1) + t));
    }
};

struct Silu {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = false;
    template <class T> static FORMULA T forward(T z, T) { return z * elementary::sigmoid(z); }
    template <class T> static FORMULA T vjp(T dA, T z, T) {
        T s = elementary::sigmoid(z);
        return dA * (s * fma(z, T(1) - s, T(1)));
    }
};

struct Softplus {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = false;
    template <class T> static FORMULA T forward(T z, T) {
        return maximum(z, T(0)) + elementary::log1p_unit(elementary::exp_not_positive(-magnitude(z)));
    }
    template <class T> static FORMULA T vjp(T dA, T z, T) { return dA * elementary::sigmoid(z); }
};

// With e = e^-|z|, t = tanh(log(1 + e^z)) is (1 + 2 e) / (1 + 2 e + 2 e^2) for z > 0, else (e^2 + 2 e) / (e^2 + 2 e + 2).
struct Mish {
    static constexpr bool DERIVATIVE_FROM_OUTPUT = false;
    template <class T> static FORMULA T parts(T z, T& e, T& rest) {
        e = elementary::exp_not_positive(-magnitude(z));
        const T p = z > T(0) ? fma(T(2), e, T(1)) : e * (e + T(2)), q = z > T(0) ? T(2) * (e * e) : T(2);
        rest = q / (p + q);  // 1 - t
        return p / (p + q);
    }
    template <class T> static FORMULA T forward(T z, T) {
        T e, rest;
        return z * parts(z, e, rest);
    }
    template <class T> static FORMULA T vjp(T dA, T z, T) {
        T e, rest;
        const T t = parts(z, e, rest), s = (z > T(0) ? T(1) : e) / (T(1) + e);
        return dA * fma(z, s * (rest * (T(1) + t)), t);
    }
};

}  // namespace
}  // namespace activations
