// A layer's operations: the product, then one pass over its result while that is in the cache.
//
// A call may be for some of a layer's units or for some of the examples: arrays (n, m) are rows of m columns, ``pitch``
// apart.
#pragma once
#include "../formulas/activations.h"
#include "../formulas/philox.h"
#include "arguments.h"
#include "gemm.h"
#include "sums.h"

namespace {

template <class T> struct Dense {
    const T* W;                   // (n, k)
    Word A_prev_transposed;       // A_prev is (m, k), examples contiguous
    const T *A_prev, *b;
    T* A;
    Word n, k, m;
    const T* parameter;           // of the activation, or 0
    T* derivative;                // (n, m), or 0
    Word pitch;
};

// A <- g(A + b), row by row;  SAVES_DERIVATIVE: derivative <- g'. b: one number for each row, or null.
template <class T, class G, bool SAVES_DERIVATIVE>
NOINLINE void activate_rows(T* A, const T* b, T* derivatives, const T* parameter, Word n, Word m, Word pitch) {
    const T p = scalar(parameter, T(0));
    for (Word r = 0; r < n; ++r) {
        T *__restrict out = A + r * pitch, *__restrict derivative = SAVES_DERIVATIVE ? derivatives + r * pitch : nullptr;
        const T bias = b ? b[r] : T(0);
        for (Word c = 0; c < m; ++c) {
            const T z = out[c] + bias, g = G::forward(z, p);
            out[c] = g;
            if (SAVES_DERIVATIVE) derivative[c] = G::vjp(T(1), G::DERIVATIVE_FROM_OUTPUT ? g : z, p);
        }
    }
}

// A <- g(W A_prev + b).
template <class T, class G, bool SAVES_DERIVATIVE> void dense(const Word* row) {
    const auto& a = read<Dense<T>>(row);
    gemm<T>(false, a.A_prev_transposed, a.n, a.m, a.k, T(1), a.W, a.k, a.A_prev, a.A_prev_transposed ? a.k : a.pitch, false, a.A, a.pitch,
            workspace());
    activate_rows<T, G, SAVES_DERIVATIVE>(a.A, a.b, a.derivative, a.parameter, a.n, a.m, a.pitch);
}

template <class T> struct Activate {
    T* A;
    Word n, m;
    const T* parameter;
    T* derivative;                // or 0
};

// A <- g(A), of a normalized layer.
template <class T, class G, bool SAVES_DERIVATIVE> void activate(const Word* row) {
    const auto& a = read<Activate<T>>(row);
    activate_rows<T, G, SAVES_DERIVATIVE>(a.A, nullptr, a.derivative, a.parameter, a.n, a.m, a.m);
}

template <class T> struct DenseVjpInput {
    const T *W, *dZ, *A_prev;
    T *dZ_prev, *db_prev;         // db_prev: or 0, when only some of the examples are in this call
    Word n, k, m;
    const T *parameter, *derivative, *scale;
    Word accumulate;
    const uint8_t* survives;          // (k, m), units that survive dropout, or 0
    Word W_width, pitch;
};

template <class T> INLINE void add_row_sum(T* db, const T* row, Word m, const T* scale, bool accumulate) {
    const T total = scalar(scale, T(1)) * sum(row, m);
    *db = accumulate ? *db + total : total;
}

template <class T, class RowPass> INLINE void vjp_input(const DenseVjpInput<T>& a, const RowPass& times_derivative) {
    gemm<T>(true, false, a.k, a.m, a.n, T(1), a.W, a.W_width, a.dZ, a.pitch, false, a.dZ_prev, a.pitch, workspace());
    for (Word r = 0; r < a.k; ++r) {
        T* row = a.dZ_prev + r * a.pitch;
        times_derivative(row, r * a.pitch);
        if (a.db_prev) add_row_sum(a.db_prev + r, row, a.m, a.scale, a.accumulate);
    }
}

// dZ_prev <- (W^T dZ) * g'(Z_prev), g' from A_prev;  db_prev <- (+) scale * sum over examples of dZ_prev.
template <class T, class G> void dense_vjp_input(const Word* row) {
    const auto& a = read<DenseVjpInput<T>>(row);
    const T p = scalar(a.parameter, T(0));
    vjp_input(a, [&](T* __restrict d, Word at) {
        const T* __restrict A = a.A_prev + at;
        for (Word c = 0; c < a.m; ++c) d[c] = G::vjp(d[c], A[c], p);
    });
}

// The same with g' that the forward pass has saved.
template <class T> void dense_vjp_input_saved(const Word* row) {
    const auto& a = read<DenseVjpInput<T>>(row);
    vjp_input(a, [&](T* __restrict d, Word at) {
        const T* __restrict derivative = a.derivative + at;
        for (Word c = 0; c < a.m; ++c) d[c] *= derivative[c];
    });
}

// The same with g' times drop. A dropped unit gives 0 for any dZ, infinity too; with ZERO_STOPS so does a relu unit whose
// output is 0.
template <class T, bool ZERO_STOPS> void dense_vjp_input_dropped(const Word* row) {
    const auto& a = read<DenseVjpInput<T>>(row);
    vjp_input(a, [&](T* __restrict d, Word at) {
        const T* __restrict derivative = a.derivative + at;
        const uint8_t* __restrict survives = a.survives + at;
        for (Word c = 0; c < a.m; ++c) {
            const bool alive = survives[c] && (!ZERO_STOPS || derivative[c] != T(0));
            d[c] = alive ? d[c] * derivative[c] : T(0);
        }
    });
}

template <class T> struct RowSums {
    const T* dZ;
    T* db;
    Word n, m;
    const T* scale;
    Word accumulate;
};

// db <- (+) scale * row sums, for calls that were split by examples, so that none had whole rows of dZ.
template <class T> void row_sums(const Word* row) {
    const auto& a = read<RowSums<T>>(row);
    for (Word r = 0; r < a.n; ++r) add_row_sum(a.db + r, a.dZ + r * a.m, a.m, a.scale, a.accumulate);
}

template <class T> struct DenseVjpParams {
    const T* dZ;
    Word A_prev_transposed;
    const T* A_prev;
    T* dW;
    Word n, k, m;
    const T* scale;
    Word accumulate, width;       // of dW, and of a transposed A_prev
};

// dW <- (+) scale * dZ A_prev^T.
template <class T> void dense_vjp_params(const Word* row) {
    const auto& a = read<DenseVjpParams<T>>(row);
    gemm_blocked<T>(false, !a.A_prev_transposed, a.n, a.k, a.m, scalar(a.scale, T(1)), a.dZ, a.m, a.A_prev,
                    a.A_prev_transposed ? a.width : a.m, a.accumulate, a.dW, a.width, BLOCK, workspace());
}

template <class T> struct Drop {
    T *A, *derivative;
    uint8_t* survives;
    const Word* step;
    const Word* key;              // k0, k1, layer, threshold
    const T* scale;               // 1/(1 - rate)
    const Word* first_example;
    Word n, m, pitch, first_column;
};

// A, g' <- A, g' times 1/(1 - rate) where a unit survives, else 0; survives <- which units do.
template <class T> void drop(const Word* row) {
    const auto& a = read<Drop<T>>(row);
    const uint64_t threshold = uint64_t(a.key[3]);
    constexpr Word COLUMNS = 256;
    for (Word start = 0; start < a.m; start += COLUMNS) {
        const Word count = a.m - start < COLUMNS ? a.m - start : COLUMNS;
        const uint32_t example = uint32_t(*a.first_example + a.first_column + start);
        for (Word r = 0; r < a.n; r += 4) {
            uint32_t words[4][COLUMNS];
            for (Word c = 0; c < count; ++c) {
                const philox::Words w = philox::words(uint32_t(r >> 2), example + uint32_t(c), uint32_t(a.key[2]), uint32_t(*a.step),
                                                      uint32_t(a.key[0]), uint32_t(a.key[1]));
                words[0][c] = w.w0, words[1][c] = w.w1, words[2][c] = w.w2, words[3][c] = w.w3;
            }
            for (Word u = r; u < r + 4 && u < a.n; ++u) {
                T *__restrict A = a.A + u * a.pitch + start, *__restrict derivative = a.derivative + u * a.pitch + start;
                uint8_t* __restrict survives = a.survives + u * a.pitch + start;
                for (Word c = 0; c < count; ++c) {
                    const bool alive = words[u - r][c] < threshold;
                    survives[c] = alive;
                    A[c] = alive ? A[c] * *a.scale : T(0);
                    derivative[c] = alive ? derivative[c] * *a.scale : T(0);
                }
            }
        }
    }
}

}  // namespace
