// The arithmetic that every formula is written in, for a host compiler and for NVRTC alike.
//
// No compiler may contract a * b + c by itself (-ffp-contract=off, --fmad=false): where a fused multiply-add is meant,
// fma() says so. That, and elementary functions of our own, is why every processor gives the same bits.
#pragma once

#ifdef __CUDACC__
#pragma nv_diag_suppress 177  // unused functions: a kernel file needs some of the formulas
#define FORMULA __host__ __device__ __forceinline__
#else
#define FORMULA inline __attribute__((always_inline))
#endif

namespace {

#ifdef __CUDACC__
FORMULA int bits(float x) { return __float_as_int(x); }
FORMULA long long bits(double x) { return __double_as_longlong(x); }
FORMULA float from_bits(int x) { return __int_as_float(x); }
FORMULA double from_bits(long long x) { return __longlong_as_double(x); }
#else
FORMULA float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FORMULA double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
FORMULA float sqrt(float x) { return __builtin_sqrtf(x); }
FORMULA double sqrt(double x) { return __builtin_sqrt(x); }
FORMULA int bits(float x) { return __builtin_bit_cast(int, x); }
FORMULA long long bits(double x) { return __builtin_bit_cast(long long, x); }
FORMULA float from_bits(int x) { return __builtin_bit_cast(float, x); }
FORMULA double from_bits(long long x) { return __builtin_bit_cast(double, x); }
#endif

// What differs between the two types. ROUND_SHIFT: x + ROUND_SHIFT has the integer nearest to x in its lowest bits.
template <class T> struct Format;
template <> struct Format<float> {
    typedef int Bits;
    typedef unsigned int Unsigned;
    static constexpr int MANTISSA_BITS = 23, BIAS = 127;
    static constexpr Bits SIGN = (Bits)0x80000000u;
    static constexpr float ROUND_SHIFT = 12582912.f;
};
template <> struct Format<double> {
    typedef long long Bits;
    typedef unsigned long long Unsigned;
    static constexpr int MANTISSA_BITS = 52, BIAS = 1023;
    static constexpr Bits SIGN = (Bits)0x8000000000000000ull;
    static constexpr double ROUND_SHIFT = 6755399441055744.0;
};
template <class T> using Bits = typename Format<T>::Bits;

template <class T> FORMULA T magnitude(T x) { return from_bits(Bits<T>(bits(x) & ~Format<T>::SIGN)); }
// |size| with the sign of x, -0.0 included.
template <class T> FORMULA T with_sign_of(T x, T size) {
    return from_bits(Bits<T>((bits(size) & ~Format<T>::SIGN) | (bits(x) & Format<T>::SIGN)));
}
// NaN comes through, as through numpy.maximum, numpy.minimum and numpy.sign.
template <class T> FORMULA T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> FORMULA T minimum(T a, T b) { return a < b || a != a ? a : b; }
template <class T> FORMULA T sign(T x) { return x > T(0) ? T(1) : (x < T(0) ? T(-1) : x); }

template <class T> FORMULA T smallest_normal() { return from_bits(Bits<T>(Bits<T>(1) << Format<T>::MANTISSA_BITS)); }
template <class T> FORMULA T infinity() {
    return from_bits(Bits<T>(Bits<T>(2 * Format<T>::BIAS + 1) << Format<T>::MANTISSA_BITS));
}

// Horner's rule, highest power first.
template <class T> FORMULA T polynomial(T, T c) { return c; }
template <class T, class... More> FORMULA T polynomial(T x, T c, T next, More... more) {
    return polynomial(x, fma(c, x, next), more...);
}

}  // namespace
