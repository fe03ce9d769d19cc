// Periodic embeddings (maths/periodic.py), number by number. Sums are in cpu/periodic.h and cuda/periodic.cu: those over a
// column's waves and over its outputs are chains of fma in their order, those over examples are in the order of sums.h.
#pragma once
#include "trigonometric.h"

namespace periodic {
namespace {

constexpr double TWO_PI = 6.283185307179586;

// p = cos z, q = -sin z with z = 2 pi w x + b.
template <class T> FORMULA void wave(T x, T w, T b, T& p, T& q) {
    T s;
    elementary::sin_cos((T(TWO_PI) * w) * x + b, s, p);
    q = -s;
}

}  // namespace
}  // namespace periodic
