// Sums over examples and over parameters, in one fixed order for every instruction set and any number of threads: inside
// a block of BLOCK terms, 32 partial sums (term i goes to partial sum i mod 32) that are halved until one is
// left; the blocks are added in a fixed binary tree (BinaryTree).
#pragma once
#include "vectors.h"

#define NOINLINE __attribute__((noinline))  // one copy serves every kernel

namespace {

constexpr int64_t BLOCK = 256;  // terms of a block: examples of a sum over a batch
constexpr int PARTIALS = 32;

// Adds numbers in the order of a binary counter: equal levels merge as they appear, the rest from the smallest to the
// largest at the end. So the first 2^k numbers always form one subtree, which is what lets several processes share a
// sum.
template <class T> struct BinaryTree {
    T level[48];
    uint64_t count = 0;

    INLINE void add(T x) {
        int l = 0;
        for (uint64_t rest = count; rest & 1; rest >>= 1) x = level[l++] + x;
        level[l] = x;
        ++count;
    }
    INLINE T total() const {
        T x = T(0);
        bool any = false;
        for (int l = 0; l < 48 && count >> l; ++l)
            if (count >> l & 1) x = any ? level[l] + x : level[l], any = true;
        return x;
    }
};

// Adds the upper half of the lanes to the lower one, then quarters, ...: the sum is in lane 0.
template <int HALF, class V, int... I> INLINE V halved(V x, Indices<I...> all) {
    if constexpr (HALF == 0) return x;
    else return halved<HALF / 2>(x + __builtin_shufflevector(x, x, (I ^ HALF)...), all);
}

// The partial sums of f(i, lanes of terms i ...) for at most BLOCK terms, halved.
template <class T, class F> INLINE T block_sum(int64_t n, const F& f) {
    constexpr int N = LANES<T>, P = PARTIALS / N;
    Vector<T> part[P];
    UNROLL for (int i = 0; i < P; ++i) part[i] = Vector<T>{};
    int64_t c = 0;
    for (; c + PARTIALS <= n; c += PARTIALS)
        UNROLL for (int i = 0; i < P; ++i) part[i] += f(c + i * N, N);
    UNROLL for (int i = 0; i < P; ++i, c += N)
        if (c < n) part[i] += f(c, int(n - c < N ? n - c : N));
    UNROLL for (int half = P / 2; half; half /= 2)
        UNROLL for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return halved<N / 2>(part[0], typename IndicesUpTo<N>::Type())[0];
}

// sum over i < n of f(i): f(i, count) gives the terms i, i + 1, ... as a vector whose lanes from count on are 0.
template <class T, class F> INLINE T sum_of(int64_t n, const F& f) {
    if (n <= BLOCK) return block_sum<T>(n, f);
    BinaryTree<T> tree;
    for (int64_t start = 0; start < n; start += BLOCK)
        tree.add(block_sum<T>(n - start < BLOCK ? n - start : BLOCK, [&](int64_t i, int count) { return f(start + i, count); }));
    return tree.total();
}

template <class T> NOINLINE T sum(const T* x, int64_t n) {
    return sum_of<T>(n, [=](int64_t i, int count) { return count == LANES<T> ? load(x + i) : load(x + i, count); });
}

// The same order in float64, of numbers that value(i) gives.
template <class F> INLINE double wide_sum(int64_t n, const F& value) {
    BinaryTree<double> tree;
    for (int64_t start = 0; start < n; start += BLOCK) {
        double part[PARTIALS] = {};
        const int64_t end = n - start < BLOCK ? n - start : BLOCK;
        int64_t c = 0;
        for (; c + PARTIALS <= end; c += PARTIALS)
            for (int l = 0; l < PARTIALS; ++l) part[l] += value(start + c + l);
        for (int l = 0; c < end; ++c, ++l) part[l] += value(start + c);
        for (int half = PARTIALS / 2; half; half /= 2)
            for (int l = 0; l < half; ++l) part[l] += part[l + half];
        tree.add(part[0]);
    }
    return tree.total();
}

}  // namespace
