// Periodic embeddings of the first columns of X (maths/periodic.py), which comes as it lies in memory, as in input_stage.h.
#pragma once
#include "../formulas/periodic.h"
#include "arguments.h"
#include "input_stage.h"

namespace {

template <class T> struct Periodic {
    const T *X, *w, *b, *V, *c;   // (J, m), (J, h), (J, h), (J o, h), (J o)
    T *E, *P, *Q;                 // (J o, m), (J h, m), the same or null
    Word J, h, o, m, unit, example;
};

// P <- cos z, Q <- -sin z, E <- V P + c, column by column.
template <class T> void periodic_forward(const Word* row) {
    const auto& a = read<Periodic<T>>(row);
    for (Word j = 0; j < a.J; ++j) {
        const T* __restrict x = a.X + j * a.unit;
        for (Word i = j * a.h; i < (j + 1) * a.h; ++i) {
            const T w = a.w[i], b = a.b[i];
            T *__restrict P = a.P + i * a.m, *__restrict Q = a.Q ? a.Q + i * a.m : nullptr;
            for (Word e = 0; e < a.m; ++e) {
                T q;
                periodic::wave(x[e * a.example], w, b, P[e], q);
                if (Q) Q[e] = q;
            }
        }
        for (Word k = j * a.o; k < (j + 1) * a.o; ++k) {
            T* __restrict E = a.E + k * a.m;
            const T c = a.c[k];
            for (Word e = 0; e < a.m; ++e) E[e] = T(0);
            for (Word i = 0; i < a.h; ++i) {
                const T *__restrict P = a.P + (j * a.h + i) * a.m, V = a.V[k * a.h + i];
                for (Word e = 0; e < a.m; ++e) E[e] = fma(V, P[e], E[e]);
            }
            for (Word e = 0; e < a.m; ++e) E[e] += c;
        }
    }
}

template <class T> struct PeriodicVjp {
    const T *dE, *X, *P, *Q, *V, *scale;
    T *dw, *db, *dV, *dc;
    Word accumulate, J, h, o, m, unit, example;
};

template <class T> INLINE void put(T& at, T term, bool accumulate) { at = accumulate ? at + term : term; }

// dc <- (+) scale sum dE;  dV <- (+) scale dE P^T;  with dz = (V^T dE) Q:  db <- (+) scale sum dz;  dw <- (+) scale 2 pi sum dz x.
template <class T> void periodic_vjp(const Word* row) {
    const auto& a = read<PeriodicVjp<T>>(row);
    const T scale = scalar(a.scale, T(1));
    const Word h = a.h, o = a.o, m = a.m, example = a.example;
    const bool accumulate = a.accumulate;
    for (Word j = 0; j < a.J; ++j) {
        const T *dE = a.dE + j * o * m, *x = a.X + j * a.unit, *V = a.V + j * o * h;
        for (Word k = 0; k < o; ++k) {
            const T* d = dE + k * m;
            put(a.dc[j * o + k], scale * sum(d, m), accumulate);
            for (Word i = 0; i < h; ++i) {
                const T* P = a.P + (j * h + i) * m;
                const T total = sum_of<T>(m, [=](Word e, int count) { return lanes_apart(d + e, 1, count) * lanes_apart(P + e, 1, count); });
                put(a.dV[(j * o + k) * h + i], scale * total, accumulate);
            }
        }
        for (Word i = 0; i < h; ++i) {
            const T* Q = a.Q + (j * h + i) * m;
            const auto dz = [=](Word e, int count) {
                Vector<T> d{};
                for (Word k = 0; k < o; ++k) {
                    const T* from = dE + k * m + e;
                    d = fma(broadcast(V[k * h + i]), lanes_apart(from, 1, count), d);
                }
                return d * lanes_apart(Q + e, 1, count);
            };
            put(a.db[j * h + i], scale * sum_of<T>(m, dz), accumulate);
            const T along = sum_of<T>(m, [=](Word e, int count) { return dz(e, count) * lanes_apart(x + e * example, example, count); });
            put(a.dw[j * h + i], scale * (T(periodic::TWO_PI) * along), accumulate);
        }
    }
}

}  // namespace
