// Parametric activations of a layer (maths/parametric.py), unit by unit.
#pragma once
#include "../formulas/parametric.h"
#include "arguments.h"
#include "layers.h"
#include "sums.h"

namespace {

template <class T> struct Parametric {
    const T *Z, *alpha, *parameter;
    T *A, *D, *S;                 // D, S: or null
    Word n, m;
};

// A <- Z + alpha D, D <- g(Z) - Z, S <- g'(Z).
template <class T, class G> void parametric_forward(const Word* row) {
    const auto& a = read<Parametric<T>>(row);
    const T p = scalar(a.parameter, T(0));
    for (Word r = 0; r < a.n; ++r) {
        const T *__restrict Z = a.Z + r * a.m, alpha = a.alpha[r];
        T* __restrict A = a.A + r * a.m;
        T unused;
        if (!a.D) {
            for (Word c = 0; c < a.m; ++c) A[c] = parametric::forward<G>(Z[c], alpha, p, unused, unused);
            continue;
        }
        T *__restrict D = a.D + r * a.m, *__restrict S = a.S + r * a.m;
        for (Word c = 0; c < a.m; ++c) A[c] = parametric::forward<G>(Z[c], alpha, p, D[c], S[c]);
    }
}

template <class T> struct ParametricVjp {
    const T *dA, *D, *S, *alpha, *scale;
    T *dZ, *dalpha, *db;
    Word accumulate, accumulate_b, n, m;
};

// dZ <- dA (1 + alpha (S - 1));  dalpha <- (+) scale sum dA D;  db <- (+) scale sum dZ.
template <class T> void parametric_vjp(const Word* row) {
    const auto& a = read<ParametricVjp<T>>(row);
    for (Word r = 0; r < a.n; ++r) {
        const T *dA = a.dA + r * a.m, *D = a.D + r * a.m, *S = a.S + r * a.m, alpha = a.alpha[r];
        const T term = scalar(a.scale, T(1)) * sum_of<T>(a.m, [=](Word i, int count) {
            return parametric::vjp_alpha(load(dA + i, count), load(D + i, count));
        });
        a.dalpha[r] = a.accumulate ? a.dalpha[r] + term : term;
        T* __restrict dZ = a.dZ + r * a.m;
        for (Word c = 0; c < a.m; ++c) dZ[c] = parametric::vjp(dA[c], S[c], alpha);
        add_row_sum(a.db + r, dZ, a.m, a.scale, a.accumulate_b);
    }
}

}  // namespace
