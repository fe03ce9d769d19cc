// Parametric activations (maths/parametric.py), number by number. Sums over examples are in cpu/parametric.h and
// cuda/parametric.cu.
#pragma once
#include "activations.h"

namespace parametric {
namespace {

// D = g(z) - z and S = g'(z); returns z + alpha D.
template <class G, class T> FORMULA T forward(T z, T alpha, T p, T& D, T& S) {
    const T g = G::forward(z, p), d = g - z;  // D and S may be one place that nobody reads
    D = d;
    S = G::vjp(T(1), G::DERIVATIVE_FROM_OUTPUT ? g : z, p);
    return z + alpha * d;
}

template <class T> FORMULA T vjp(T dA, T S, T alpha) { return dA * (T(1) + alpha * (S - T(1))); }
template <class T> FORMULA T vjp_alpha(T dA, T D) { return dA * D; }  // a term of dalpha

}  // namespace
}  // namespace parametric
