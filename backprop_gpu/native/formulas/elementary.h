// exp, expm1, log, log1p, tanh, sigmoid and erf without branches, tables or calls, so that compilers make vector code
// of loops over them. Worst errors in units in the last place are measured by tests/native/test_elementary.py; NaN
// gives NaN, infinities their limits, -0.0 keeps its sign where the function is odd.
#pragma once
#include "coefficients.h"

namespace elementary {
namespace {

// LOG2_HIGH + LOG2_LOW = log 2; LOG2_HIGH has so few bits that its product with an exponent is exact.
template <class T> struct Range;
template <> struct Range<float> {
    static constexpr float EXP_LOWEST = -104.f, EXP_HIGHEST = 89.f, EXPM1_LOWEST = -18.f, ERF_IS_ONE = 4.f;
    static constexpr float LOG2_HIGH = 0.693145752f, LOG2_LOW = 1.42860677e-06f;
    static constexpr int SQRT_HALF = 0x3F3504F3;  // the bits of sqrt(1/2)
};
template <> struct Range<double> {
    static constexpr double EXP_LOWEST = -746.0, EXP_HIGHEST = 710.0, EXPM1_LOWEST = -40.0, ERF_IS_ONE = 6.0;
    static constexpr double LOG2_HIGH = 0.6931471803691238, LOG2_LOW = 1.9082149292705877e-10;
    static constexpr long long SQRT_HALF = 0x3FE6A09E667F3BCDll;
};

// x = n log 2 + r, |r| <= (log 2)/2: returns e^r - 1, and n.
template <class T> FORMULA T reduced_expm1(T x, Bits<T>& n) {
    T shifted = fma(x, T(1.4426950408889634), T(Format<T>::ROUND_SHIFT));
    n = bits(shifted) - bits(T(Format<T>::ROUND_SHIFT));
    T whole = shifted - T(Format<T>::ROUND_SHIFT);
    T r = fma(whole, -T(Range<T>::LOG2_LOW), fma(whole, -T(Range<T>::LOG2_HIGH), x));
    return fma(exp_polynomial(r), r * r, r);
}

// Of NaN, n is any number: hence the shift of an unsigned one.
template <class T> FORMULA T power_of_2(Bits<T> n) {
    return from_bits(Bits<T>(typename Format<T>::Unsigned(n + Format<T>::BIAS) << Format<T>::MANTISSA_BITS));
}

// e^x, scaled by 2^n in two halves so that results below the smallest normal and near the largest number come out
// right.
template <class T> FORMULA T exp_between_limits(T x) {
    Bits<T> n;
    T q = reduced_expm1<T>(x, n) + T(1);
    return q * power_of_2<T>(n >> 1) * power_of_2<T>(n - (n >> 1));
}
// Of any number, of one that is not positive, of one that is not negative: written so that NaN stays NaN.
template <class T> FORMULA T exp_not_positive(T x) {
    return exp_between_limits(x < T(Range<T>::EXP_LOWEST) ? T(Range<T>::EXP_LOWEST) : x);
}
template <class T> FORMULA T exp_not_negative(T x) {
    return exp_between_limits(x > T(Range<T>::EXP_HIGHEST) ? T(Range<T>::EXP_HIGHEST) : x);
}
template <class T> FORMULA T exp(T x) {
    return exp_not_positive(x > T(Range<T>::EXP_HIGHEST) ? T(Range<T>::EXP_HIGHEST) : x);
}

// e^x for x in [-80, 80], where no clamp and no halves are needed.
template <class T> FORMULA T exp_in_range(T x) {
    Bits<T> n;
    T q = reduced_expm1<T>(x, n) + T(1);
    return q * power_of_2<T>(n);
}

// e^x - 1 = 2 (2^(n-1) (e^r - 1) + 2^(n-1) - 1/2).
template <class T> FORMULA T expm1(T x) {
    Bits<T> n;
    T y = x > T(Range<T>::EXP_HIGHEST) ? T(Range<T>::EXP_HIGHEST) : x;
    T q = reduced_expm1<T>(y < T(Range<T>::EXPM1_LOWEST) ? T(Range<T>::EXPM1_LOWEST) : y, n);
    T half = power_of_2<T>(n - 1), result = T(2) * fma(half, q, half - T(0.5));
    return x == T(0) ? x : result;
}

// log x for x = 0 and normal x > 0: x = 2^n (1 + d), log(1 + d) = d - d^2/2 + d^3 P(d). n becomes a number by lying in
// the mantissa of a large one, since a conversion of 64-bit integers is no vector instruction before AVX-512.
template <class T> FORMULA T log(T x) {
    typedef Format<T> F;
    const Bits<T> large = Bits<T>(F::BIAS + F::MANTISSA_BITS) << F::MANTISSA_BITS, one = Bits<T>(F::BIAS) << F::MANTISSA_BITS;
    // Not negative, except for NaN and what is negative itself: hence the sum of unsigned ones.
    const Bits<T> shifted = Bits<T>(typename F::Unsigned(bits(x)) + typename F::Unsigned(one - Range<T>::SQRT_HALF));
    T n = from_bits(Bits<T>((shifted >> F::MANTISSA_BITS) | large)) - (from_bits(large) + T(F::BIAS));
    T d = from_bits(Bits<T>((shifted & ((Bits<T>(1) << F::MANTISSA_BITS) - 1)) + Range<T>::SQRT_HALF)) - T(1), u = d * d;
    T y = fma(n, T(Range<T>::LOG2_HIGH), d + fma(T(-0.5), u, fma(log_polynomial(d) * d, u, n * T(Range<T>::LOG2_LOW))));
    y = x == T(0) ? -infinity<T>() : y;
    y = x < T(0) ? infinity<T>() - infinity<T>() : y;
    return x < infinity<T>() ? y : x;
}

// log(1 + e) for 0 <= e <= 1.
template <class T> FORMULA T log1p_unit(T e) { return fma(log1p_polynomial(e), e * e, e); }

// x + x^3 P(x^2) up to 0.625, else 1 - 2/(e^(2|x|) + 1), with the sign of x.
template <class T> FORMULA T tanh(T x) {
    T size = magnitude(x), u = x * x, small = fma(tanh_polynomial(u) * u, size, size);
    T large = T(1) - T(2) / (exp_not_negative(T(2) * size) + T(1));
    return with_sign_of(x, size > T(0.625) ? large : small);
}

// 1/(1 + e^-|x|), or e^-|x| times that for x <= 0.
template <class T> FORMULA T sigmoid(T x) {
    T e = exp_not_positive(-magnitude(x)), s = T(1) / (T(1) + e);
    return x > T(0) ? s : e * s;
}

// x + x P(x^2) up to 1, beyond it 1 - e^(-x^2) Q(1/(1 + |x|/2)), with the sign of x.
template <class T> FORMULA T erf(T x) {
    T size = magnitude(x), small = fma(erf_polynomial(x * x), size, size);
    T t = size > T(Range<T>::ERF_IS_ONE) ? T(Range<T>::ERF_IS_ONE) : size;
    T large = fma(-exp_in_range(-(t * t)), erfc_polynomial(T(1) / fma(T(0.5), t, T(1))), T(1));
    return with_sign_of(x, size > T(1) ? large : small);
}

}  // namespace
}  // namespace elementary
