// sin and cos without branches, tables or calls. Both are computed in double, so that a float's error is that of its own
// rounding; of numbers beyond 2^50, whose neighbours are further apart than a wave of float is long, they are 0 and 1.
#pragma once
#include "real.h"

namespace elementary {
namespace {

// x = n pi/2 + r, |r| <= pi/4, with pi/2 in three parts; the polynomials are those of fdlibm (k_sin.c, k_cos.c).
FORMULA void sin_cos(double given, double& s, double& c) {
    const double x = magnitude(given) < 0x1p50 ? given : 0.0 * given;  // NaN of NaN and of infinities
    const double shifted = fma(x, 0.6366197723675814, Format<double>::ROUND_SHIFT), whole = shifted - Format<double>::ROUND_SHIFT;
    const long long n = bits(shifted);
    const double r = fma(whole, 1.4973849048591833e-33, fma(whole, -6.123233995736766e-17, fma(whole, -1.5707963267948966, x)));
    const double u = r * r;
    const double p = polynomial(u, 1.58969099521155010221e-10, -2.50507602534068634195e-08, 2.75573137070700676789e-06,
                                -1.98412698298579493134e-04, 8.33333333332248946124e-03, -1.66666666666666324348e-01);
    const double q = polynomial(u, -1.13596475577881948265e-11, 2.08757232129817482790e-09, -2.75573143513906633035e-07,
                                2.48015872894767294178e-05, -1.38888888888741095749e-03, 4.16666666666666019037e-02);
    const double odd = fma(r * u, p, r), even = fma(u * u, q, fma(-0.5, u, 1.0));
    const double sine = n & 1 ? even : odd, cosine = n & 1 ? odd : even;
    s = n & 2 ? -sine : sine;
    c = (n + 1) & 2 ? -cosine : cosine;
}
FORMULA void sin_cos(float x, float& s, float& c) {
    double sine, cosine;
    sin_cos(double(x), sine, cosine);
    s = float(sine), c = float(cosine);
}

template <class T> FORMULA T sin(T x) {
    T s, c;
    sin_cos(x, s, c);
    return s;
}
template <class T> FORMULA T cos(T x) {
    T s, c;
    sin_cos(x, s, c);
    return c;
}

}  // namespace
}  // namespace elementary
