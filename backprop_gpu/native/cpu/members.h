// The weights of an ensemble's members, which share W (maths/batch_ensemble.py).
#pragma once
#include "../formulas/batch_ensemble.h"
#include "arguments.h"
#include "sums.h"

namespace {

template <class T> struct MemberWeights {
    const T *W, *r, *s;           // (n, k), (k,), (n,) or null
    T* out;
    Word n, k;
};

// out <- diag(s) W diag(r), for some of the rows.
template <class T> void member_weights(const Word* row) {
    const auto& a = read<MemberWeights<T>>(row);
    for (Word i = 0; i < a.n; ++i) {
        const T *__restrict w = a.W + i * a.k, *__restrict r = a.r, s = a.s ? a.s[i] : T(1);
        T* __restrict out = a.out + i * a.k;
        for (Word j = 0; j < a.k; ++j) out[j] = batch_ensemble::scaled(w[j], r[j], s);
    }
}

template <class T> struct MemberWeightsVjp {
    const T *G, *W, *r, *s;
    T *dW, *dr;
    Word accumulate, accumulate_own, n, k, pitch;
};

// dW <- (+) diag(s) G diag(r), dr <- (+) sum over rows of s W G, for some of the columns: as many at a time as a vector has lanes,
// each summed in the order of sums.h.
template <class T> void member_weights_vjp(const Word* row) {
    const auto& a = read<MemberWeightsVjp<T>>(row);
    BinaryTree<T> trees[LANES<T>];
    for (Word c = 0; c < a.k; c += LANES<T>) {
        const int count = int(a.k - c < LANES<T> ? a.k - c : LANES<T>);
        const Vector<T> r = load(a.r + c, count);
        for (auto& tree : trees) tree.count = 0;
        for (Word start = 0; start < a.n; start += BLOCK) {
            Vector<T> part[PARTIALS] = {};
            for (Word i = start; i < a.n && i < start + BLOCK; ++i) {
                const Word at = i * a.pitch + c;
                const Vector<T> G = load(a.G + at, count), s = broadcast(a.s ? a.s[i] : T(1));
                part[(i - start) % PARTIALS] += batch_ensemble::scaled(G, load(a.W + at, count), s);
                const Vector<T> dW = batch_ensemble::scaled(G, r, s);
                store(a.dW + at, a.accumulate ? load(a.dW + at, count) + dW : dW, count);
            }
            for (int half = PARTIALS / 2; half; half /= 2)
                for (int i = 0; i < half; ++i) part[i] += part[i + half];
            for (int i = 0; i < count; ++i) trees[i].add(part[0][i]);
        }
        for (int i = 0; i < count; ++i) a.dr[c + i] = a.accumulate_own ? a.dr[c + i] + trees[i].total() : trees[i].total();
    }
}

template <class T> struct MemberOutputsVjp {
    const T *G, *W, *r;
    T* ds;
    Word accumulate, n, k;
};

// ds <- (+) sum over columns of W G r, for some of the rows.
template <class T> void member_outputs_vjp(const Word* row) {
    const auto& a = read<MemberOutputsVjp<T>>(row);
    for (Word i = 0; i < a.n; ++i) {
        const T *G = a.G + i * a.k, *W = a.W + i * a.k, *r = a.r;
        const T total = sum_of<T>(a.k, [=](Word j, int count) {
            return batch_ensemble::scaled(load(G + j, count), load(W + j, count), load(r + j, count));
        });
        a.ds[i] = a.accumulate ? a.ds[i] + total : total;
    }
}

}  // namespace
