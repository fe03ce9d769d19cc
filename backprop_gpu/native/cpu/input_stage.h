// What is computed of the inputs before the first dense layer (network/input_stage.py). X comes as it lies in memory: a
// number of unit u and example e is at u * unit + e * example. Everything else is rows of m examples.
#pragma once
#include "../formulas/scaling.h"
#include "arguments.h"
#include "sums.h"

namespace {

template <class T> INLINE Vector<T> lanes_apart(const T* x, Word apart, int count) {
    if (apart == 1) return count == LANES<T> ? load(x) : load(x, count);
    Vector<T> v{};
    for (int i = 0; i < count; ++i) v[i] = x[i * apart];
    return v;
}

template <class T> struct Scaling {
    const T *X, *s;
    T* H;
    Word n, m, unit, example;
};

// H <- s X.
template <class T> void scaling_forward(const Word* row) {
    const auto& a = read<Scaling<T>>(row);
    for (Word r = 0; r < a.n; ++r) {
        const T *__restrict x = a.X + r * a.unit, s = a.s[r];
        T* __restrict H = a.H + r * a.m;
        for (Word c = 0; c < a.m; ++c) H[c] = scaling::forward(x[c * a.example], s);
    }
}

template <class T> struct ScalingVjp {
    const T *dH, *X, *s, *scale;
    T *dX, *ds;                   // dX: or null
    Word accumulate, n, m, unit, example;
};

// dX <- s dH;  ds <- (+) scale * sum over examples of dH X.
template <class T> void scaling_vjp(const Word* row) {
    const auto& a = read<ScalingVjp<T>>(row);
    for (Word r = 0; r < a.n; ++r) {
        const T *d = a.dH + r * a.m, *x = a.X + r * a.unit, s = a.s[r];
        const Word example = a.example;
        const T total = sum_of<T>(a.m, [=](Word i, int count) {
            return scaling::vjp_scale(lanes_apart(d + i, 1, count), lanes_apart(x + i * example, example, count));
        });
        const T term = scalar(a.scale, T(1)) * total;
        a.ds[r] = a.accumulate ? a.ds[r] + term : term;
        if (!a.dX) continue;
        T* __restrict out = a.dX + r * a.m;
        for (Word c = 0; c < a.m; ++c) out[c] = scaling::vjp(d[c], s);
    }
}

}  // namespace
