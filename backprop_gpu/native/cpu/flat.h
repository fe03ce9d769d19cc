// Operations on the flat vector of all parameters: penalty, gradient norm, optimizer, moving average.
//
// A sum over parameters is computed in blocks of PARAMETERS numbers, by any threads; a second call adds the blocks' sums.
// The order of additions therefore does not depend on the number of threads.
#pragma once
#include "../formulas/optimizers.h"
#include "arguments.h"
#include "sums.h"

namespace {

constexpr Word PARAMETERS = 4096;  // per block; backends/cpu/calls.py splits at its multiples

template <class T> struct Update {
    T* theta;
    const T* grad;
    T* state[3];
    const T *scalars, *constants, *factor;
    Word n;
};

// theta, state <- optimizer(theta, factor * grad, state; scalars).
template <class T, class Rule> void update(const Word* row) {
    const auto& a = read<Update<T>>(row);
    const T factor = scalar(a.factor, T(1));
    T s[3] = {}, c[5];
    for (int i = 0; i < Rule::SCALARS; ++i) s[i] = a.scalars[i];
    for (int i = 0; i < 5; ++i) c[i] = a.constants[i];
    T *__restrict theta = a.theta, *__restrict x = a.state[0], *__restrict y = a.state[1], *__restrict z = a.state[2];
    const T* __restrict grad = a.grad;
    for (Word i = 0; i < a.n; ++i) {
        T none = T(0);
        Rule::step(theta[i], factor * grad[i], Rule::SLOTS > 0 ? x[i] : none, Rule::SLOTS > 1 ? y[i] : none,
                   Rule::SLOTS > 2 ? z[i] : none, s, c);
    }
}

template <class T> struct Average {
    const T* theta;
    T* average;
    const T* share;
    Word n;
};

// average <- average + share (theta - average).
template <class T> void average(const Word* row) {
    const auto& a = read<Average<T>>(row);
    const T share = *a.share, *__restrict theta = a.theta;
    T* __restrict mean = a.average;
    for (Word i = 0; i < a.n; ++i) mean[i] += share * (theta[i] - mean[i]);
}

template <class T> struct Penalty {
    const T* theta;
    T* grad;
    const T *l1, *l2;
    double* sums;                 // one for each block
    Word first_block, n_blocks, n;
};

// grad += l2 theta + l1 sign(theta);  sums <- l2/2 |theta|^2 + l1 |theta|_1 of each block. A strength that is null
// is skipped and not taken as 0: 0 times infinity would be NaN.
template <class T> void penalty(const Word* row) {
    const auto& a = read<Penalty<T>>(row);
    for (Word b = 0; b < a.n_blocks; ++b) {
        const Word left = a.n - (a.first_block + b) * PARAMETERS, n = left < PARAMETERS ? left : PARAMETERS;
        const T* __restrict theta = a.theta + b * PARAMETERS;
        T* __restrict grad = a.grad + b * PARAMETERS;
        double total = 0;
        if (a.l2) {
            const T l2 = *a.l2;
            for (Word i = 0; i < n; ++i) grad[i] += l2 * theta[i];
            total += 0.5 * double(l2) * wide_sum(n, [=](Word i) { return double(theta[i]) * double(theta[i]); });
        }
        if (a.l1) {
            const T l1 = *a.l1;
            for (Word i = 0; i < n; ++i) grad[i] += l1 * sign(theta[i]);
            total += double(l1) * wide_sum(n, [=](Word i) { return double(magnitude(theta[i])); });
        }
        a.sums[b] = total;
    }
}

template <class T> struct PenaltyValue {
    const double* sums;
    Word n_blocks;
    T* value;
};

// value += the sums of ``penalty``.
template <class T> void penalty_value(const Word* row) {
    const auto& a = read<PenaltyValue<T>>(row);
    const double* sums = a.sums;
    *a.value += T(wide_sum(a.n_blocks, [=](Word i) { return sums[i]; }));
}

// Powers of two that scale a block so that its squares neither overflow nor vanish: float64 alone needs one, since the
// squares of float32 are summed in float64.
template <class T> INLINE double block_scale(const T*, Word) { return 1.0; }
template <> INLINE double block_scale(const double* g, Word n) {
    double largest = 0;
    for (Word i = 0; i < n; ++i) largest = magnitude(g[i]) > largest ? magnitude(g[i]) : largest;
    // The power of two below the largest, clamped so that its inverse is a normal number too.
    double scale = from_bits((long long)(bits(largest) & 0x7FF0000000000000ll));
    return scale < 0x1p-1000 ? 0x1p-1000 : scale > 0x1p1000 ? 0x1p1000 : scale;
}

template <class T> struct Squares {
    const T* grad;
    double *sums, *scales;        // one for each block
    Word first_block, n_blocks, n;
};

// sums, scales: |grad|^2 of each block is sum * scale^2.
template <class T> void squares(const Word* row) {
    const auto& a = read<Squares<T>>(row);
    for (Word b = 0; b < a.n_blocks; ++b) {
        const Word left = a.n - (a.first_block + b) * PARAMETERS, n = left < PARAMETERS ? left : PARAMETERS;
        const T* g = a.grad + b * PARAMETERS;
        const double scale = block_scale(g, n), inverse = 1.0 / scale;
        a.scales[b] = scale;
        a.sums[b] = wide_sum(n, [=](Word i) { return (double(g[i]) * inverse) * (double(g[i]) * inverse); });
    }
}

template <class T> struct GlobalNorm {
    const double *sums, *scales;
    Word n_blocks;
    const T* max_norm;
    T *norm, *factor;
};

// norm <- |grad|_2 from the sums of ``squares``;  factor <- min(1, max_norm / norm).
template <class T> void global_norm(const Word* row) {
    const auto& a = read<GlobalNorm<T>>(row);
    const double *sums = a.sums, *scales = a.scales;
    double largest = scales[0];
    for (Word b = 1; b < a.n_blocks; ++b) largest = scales[b] > largest ? scales[b] : largest;
    const double inverse = 1.0 / largest;
    const double total = wide_sum(a.n_blocks, [=](Word b) { return sums[b] * (scales[b] * inverse) * (scales[b] * inverse); });
    const double root = sqrt(total);
    const T size = T(largest * root), max_norm = *a.max_norm;
    *a.norm = size;
    *a.factor = optimizers::clip_factor(size, max_norm, root, largest);
}

}  // namespace
