// The loss: dZ[L], the weighted loss of each example, then db[L] and the cost (the formulas of maths/losses.py).
#pragma once
#include "../formulas/losses.h"
#include "arguments.h"
#include "sums.h"

namespace {

template <class T> struct OutputDelta {
    const T* Z;
    T* dZ;
    const void* Y;                // examples contiguous: (m, n) of T, or int64 class labels
    const T *weights, *inverse_denominator;
    Word early;
    T* losses;                    // (m,)
    Word n, m, pitch;
    const T* parameters;          // of the loss, p and 1 - p: one pair, or one for each of several outputs in turn
    Word n_parameters;
    const Word* groups;           // sizes of the softmaxes
    Word n_groups;
};

constexpr Word EXAMPLES = 256;  // processed at a time, so that their temporaries fit on the stack

// T = (1 - p) Y + smooth of output r and example c, from labels or from columns: the same bits either way.
template <class T, bool LABELS> INLINE T target(const OutputDelta<T>& a, Word r, Word c, T rest, T smooth) {
    const T y = LABELS ? T(((const Word*)a.Y)[c] == r) : ((const T*)a.Y)[c * a.n + r];
    return rest * y + smooth;
}

// dZ <- AL sum_k T - T and loss += sum_k T (log sum_j e^S - S), S = Z - max Z, for examples start ... start + count of
// the softmax over outputs first ... end.
template <class T, bool LABELS> INLINE void softmax_group(const OutputDelta<T>& a, Word first, Word end, Word start, Word count) {
    T highest[EXAMPLES], total[EXAMPLES], targets[EXAMPLES], t[EXAMPLES];
    const T rest = a.parameters[1], smooth = a.parameters[0] / T(end - first);
    T* __restrict loss = a.losses + start;
    for (Word c = 0; c < count; ++c) highest[c] = a.Z[first * a.pitch + start + c], total[c] = targets[c] = T(0);
    for (Word r = first + 1; r < end; ++r) {
        const T* __restrict z = a.Z + r * a.pitch + start;
        for (Word c = 0; c < count; ++c) highest[c] = highest[c] > z[c] ? highest[c] : z[c];
    }
    for (Word r = first; r < end; ++r) {
        const T* __restrict z = a.Z + r * a.pitch + start;
        T* __restrict d = a.dZ + r * a.pitch + start;
        for (Word c = 0; c < count; ++c) t[c] = target<T, LABELS>(a, r, start + c, rest, smooth);
        for (Word c = 0; c < count; ++c) {
            const T e = elementary::exp_not_positive(z[c] - highest[c]);
            d[c] = e;
            total[c] += e;
            targets[c] += t[c];
        }
    }
    for (Word c = 0; c < count; ++c) {
        loss[c] += targets[c] * elementary::log(total[c]);
        total[c] = targets[c] / total[c];
    }
    for (Word r = first; r < end; ++r) {
        const T* __restrict z = a.Z + r * a.pitch + start;
        T* __restrict d = a.dZ + r * a.pitch + start;
        for (Word c = 0; c < count; ++c) t[c] = target<T, LABELS>(a, r, start + c, rest, smooth);
        for (Word c = 0; c < count; ++c) {
            d[c] = d[c] * total[c] - t[c];
            loss[c] -= t[c] * (z[c] - highest[c]);
        }
    }
}

template <bool LABELS> struct Softmaxes {
    template <class T> static INLINE void sweep(const OutputDelta<T>& a, Word start, Word count) {
        Word first = 0;
        for (Word g = 0; g < a.n_groups; first += a.groups[g++])
            softmax_group<T, LABELS>(a, first, first + a.groups[g], start, count);
    }
};

// The losses that treat each output by itself, summed or averaged over outputs.
template <class Loss> struct Separate {
    template <class T> static INLINE void sweep(const OutputDelta<T>& a, Word start, Word count) {
        T t[EXAMPLES];
        T* __restrict loss = a.losses + start;
        const T share = Loss::AVERAGED ? T(1) / T(a.n) : T(1);
        for (Word r = 0; r < a.n; ++r) {
            const T* __restrict z = a.Z + r * a.pitch + start;
            T* __restrict d = a.dZ + r * a.pitch + start;
            const T *pair = a.parameters + 2 * (r % a.n_parameters), p = pair[0], rest = pair[1];
            // Binary labels may be smoothed: T = (1 - p) Y + p/2.
            const T keep = Loss::AVERAGED ? T(1) : rest, smooth = Loss::AVERAGED ? T(0) : T(0.5) * p;
            for (Word c = 0; c < count; ++c) t[c] = target<T, false>(a, r, start + c, keep, smooth);
            for (Word c = 0; c < count; ++c) {
                d[c] = share * Loss::delta(z[c], t[c], p, rest);
                loss[c] += share * Loss::value(z[c], t[c], p, rest);
            }
        }
    }
};

// dZ <- w dL/dZ (times 1/D if early);  losses <- w L. An example of weight 0 contributes 0, even if its loss is NaN.
template <class T, class Sweep> void output_delta(const Word* row) {
    const auto& a = read<OutputDelta<T>>(row);
    const T early = a.early ? scalar(a.inverse_denominator, T(1)) : T(1);
    for (Word start = 0; start < a.m; start += EXAMPLES) {
        const Word count = a.m - start < EXAMPLES ? a.m - start : EXAMPLES;
        T* __restrict loss = a.losses + start;
        for (Word c = 0; c < count; ++c) loss[c] = T(0);
        Sweep::sweep(a, start, count);
        if (!a.weights && !a.early) continue;
        if (a.weights) {
            T factor[EXAMPLES];
            const T* __restrict w = a.weights + start;
            for (Word c = 0; c < count; ++c) factor[c] = w[c] * early;
            for (Word c = 0; c < count; ++c) loss[c] = w[c] != T(0) ? loss[c] * w[c] : T(0);
            for (Word r = 0; r < a.n; ++r) {
                T* __restrict d = a.dZ + r * a.pitch + start;
                for (Word c = 0; c < count; ++c) d[c] = w[c] != T(0) ? d[c] * factor[c] : T(0);
            }
        } else {
            for (Word r = 0; r < a.n; ++r) {
                T* __restrict d = a.dZ + r * a.pitch + start;
                for (Word c = 0; c < count; ++c) d[c] *= early;
            }
        }
    }
}

template <class T> struct OutputSums {
    const T *losses, *dZ, *inverse_denominator;
    Word early;
    T* db;
    Word accumulate;
    T* value;
    Word n, m;
    double* total;
};

// db <- (+) row sums of dJ/dZ;  value += (1/D) sum w L;  total <- (+) sum w L.
template <class T> void output_sums(const Word* row) {
    const auto& a = read<OutputSums<T>>(row);
    const T* losses = a.losses;
    const double total = wide_sum(a.m, [=](Word c) { return double(losses[c]); });
    *a.value += T(double(scalar(a.inverse_denominator, T(1))) * total);
    *a.total = a.accumulate ? *a.total + total : total;
    const T* late = a.early ? nullptr : a.inverse_denominator;
    for (Word r = 0; r < a.n; ++r) {
        const T dbr = scalar(late, T(1)) * sum(a.dZ + r * a.m, a.m);
        a.db[r] = a.accumulate ? a.db[r] + dbr : dbr;
    }
}

}  // namespace
