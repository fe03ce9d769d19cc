// Matrix products, C <- alpha op(A) op(B) [+ C], all matrices row-major.
//
// Order of sums: a number of C is one chain of fused multiply-adds over k, in increasing order and starting from 0; then it
// is multiplied by alpha (unless alpha is 1); then the old C is added if asked for. `gemm_blocked` makes such a chain of
// each block of terms and adds the blocks in a binary tree. Bits therefore depend on nothing else: not on the instruction
// set, on tiles, or on how the caller cuts C.
//
// Method: tiles of C that stay in registers (Goto and van de Geijn 2008; BLIS). A tile reads rows of B as vectors and
// numbers of A one at a time. B is copied panel by panel where it is transposed, ragged or large, A where it is large.
// Between two stretches of k, sums are parked in the workspace and their chains continue from there.
#pragma once
#include "vectors.h"

namespace {

#if defined(__AVX512F__)
constexpr int ACCUMULATORS = 24, TILE_VECTORS = 3;  // of 32 registers; at most 8 x 3, 12 x 2 or 12 x 1 of them
#elif defined(__AVX2__)
constexpr int ACCUMULATORS = 12, TILE_VECTORS = 2;  // of 16 registers: 6 x 2 or 12 x 1
#else
constexpr int ACCUMULATORS = 24, TILE_VECTORS = 4;  // of 32 registers: 6 x 4, 8 x 3, 12 x 2 or 12 x 1
#endif
constexpr int MAX_TILE_ROWS = 12;
constexpr int tile_rows(int vectors) { return ACCUMULATORS / vectors < MAX_TILE_ROWS ? ACCUMULATORS / vectors : MAX_TILE_ROWS; }

constexpr int64_t TERMS = 256;                      // of k, between two parkings of the sums
constexpr int64_t PANEL_BYTES = TERMS * TILE_VECTORS * VECTOR_BYTES;
constexpr int64_t PACKED_ROWS = 384;                // of A
constexpr int64_t PACKED_BYTES = TERMS * PACKED_ROWS * 8;
constexpr int64_t PARKED_BYTES = 2 << 20;
constexpr size_t GEMM_WORKSPACE_BYTES = PANEL_BYTES + PACKED_BYTES + PARKED_BYTES;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t pieces(int64_t total, int64_t most) { return (total + most - 1) / most; }
// Size of the next of `count` nearly equal pieces of `total`.
INLINE int64_t next_piece(int64_t total, int64_t count) { return (total + count - 1) / count; }

// What a register tile needs. Strides are in bytes.
template <class T> struct Tile {
    int64_t k;
    const T* a;
    int64_t a_row, a_term;
    const T* b;
    int64_t b_term;
    const T* from;  // whole vectors of parked sums, or null: the chains start from 0
    T* to;
    int64_t to_row;  // in numbers
    int last;        // lanes of each row's last vector that are stored
};

template <class T, int ROWS, int VECTORS> void compute_tile(const Tile<T>& t) {
    Vector<T> sum[ROWS][VECTORS];
    if (t.from) {
        UNROLL for (int i = 0; i < ROWS; ++i)
            UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = load(t.from + (i * VECTORS + j) * LANES<T>);
    } else {
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = Vector<T>{};
    }
    // Four rows share a base register: base, base + row, base + 2 row, base + 3 row are x86 addresses.
    constexpr int BASES = (ROWS + 3) / 4;
    const char *a[BASES], *b = (const char*)t.b;
    int64_t row = t.a_row, row3 = 3 * t.a_row;
    UNROLL for (int i = 0; i < BASES; ++i) {
        a[i] = (const char*)t.a + 4 * i * row;
        __asm__("" : "+r"(a[i]));  // or the compiler derives each from the one before, in every turn of the loop
    }
    __asm__("" : "+r"(row3));
    const int64_t a_term = t.a_term, b_term = t.b_term;
    for (int64_t p = t.k; p > 0; --p) {
        Vector<T> x[VECTORS];
        UNROLL for (int j = 0; j < VECTORS; ++j) x[j] = load((const T*)b + j * LANES<T>);
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const Vector<T> factor = broadcast(*(const T*)(a[i / 4] + (i % 4 == 3 ? row3 : i % 4 * row)));
            UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = fma(factor, x[j], sum[i][j]);
        }
        UNROLL for (int i = 0; i < BASES; ++i) a[i] += a_term;
        b += b_term;
    }
    T* to = t.to;
    const int64_t to_row = t.to_row;
    const int last = t.last;
    UNROLL for (int i = 0; i < ROWS; ++i, to += to_row) {
        UNROLL for (int j = 0; j < VECTORS - 1; ++j) store(to + j * LANES<T>, sum[i][j]);
        T* end = to + (VECTORS - 1) * LANES<T>;
        if (last == LANES<T>) store(end, sum[i][VECTORS - 1]);
        else store(end, sum[i][VECTORS - 1], last);
    }
}

template <class T, int VECTORS = TILE_VECTORS, int ROWS = tile_rows(VECTORS)>
INLINE void run_tile(const Tile<T>& t, int64_t rows, int64_t vectors) {
    if (vectors == VECTORS && rows == ROWS) return compute_tile<T, ROWS, VECTORS>(t);
    if constexpr (ROWS > 1) {
        if (vectors == VECTORS) return run_tile<T, VECTORS, ROWS - 1>(t, rows, vectors);
    }
    if constexpr (VECTORS > 1) return run_tile<T, VECTORS - 1, tile_rows(VECTORS - 1)>(t, rows, vectors);
}

// panel[p][c] <- op(B)[p][c] for p < terms, c < columns; columns are filled with 0 to whole vectors.
template <class T> void pack_panel(bool transposed, int64_t terms, int64_t columns, const T* B, int64_t ldb, T* panel) {
    constexpr int N = LANES<T>;
    const int64_t width = pieces(columns, N) * N;
    for (int64_t c = 0; c < columns; c += N) {
        const int lanes = int(least(columns - c, N));
        if (!transposed)
            for (int64_t p = 0; p < terms; ++p)
                store(panel + p * width + c, lanes == N ? load(B + p * ldb + c) : load(B + p * ldb + c, lanes));
        else
            for (int64_t p = 0; p < terms; p += N) {
                const int depth = int(least(terms - p, N));
                Vector<T> square[N];
                UNROLL for (int i = 0; i < N; ++i) {
                    const T* from = B + (c + i) * ldb + p;
                    square[i] = i >= lanes ? Vector<T>{} : depth == N ? load(from) : load(from, depth);
                }
                transpose(square);
                UNROLL for (int i = 0; i < N; ++i)
                    if (i < depth) store(panel + (p + i) * width + c, square[i]);
            }
    }
}

// Numbers of A for a tile: row after row, or, transposed, term after term.
template <class T> void pack_rows(bool transposed, int64_t rows, int64_t terms, const T* A, int64_t lda, T* packed) {
    const int64_t lines = transposed ? terms : rows, length = transposed ? rows : terms;
    for (int64_t i = 0; i < lines; ++i, A += lda, packed += length) {
        int64_t at = 0;
        for (; at + LANES<T> <= length; at += LANES<T>) store(packed + at, load(A + at));
        if (at < length) store(packed + at, load(A + at, int(length - at)), int(length - at));
    }
}

// Blocks of terms are added as a binary counter counts: the sum of block number `index` (from 0) joins those of the levels
// where `index` has trailing ones, the last block those of all its ones. Level l holds the sum of 2^l blocks.
template <class T> struct Epilogue {
    const T* parked;  // this tile at level 0
    int64_t level_size;
    uint64_t levels;  // set of the levels to be added, lowest first
    T alpha;
    bool accumulate;
};

template <class T>
void finish_tile(const Epilogue<T>& e, T* sum, int64_t rows, int64_t columns, T* C, int64_t c_row, int64_t c_column) {
    constexpr int N = LANES<T>;
    const int64_t width = pieces(columns, N) * N;
    for (int64_t at = 0; at < rows * width; at += N) {
        Vector<T> x = load(sum + at);
        for (uint64_t levels = e.levels; levels; levels &= levels - 1)
            x = load(e.parked + __builtin_ctzll(levels) * e.level_size + at) + x;
        if (e.alpha != T(1)) x = x * broadcast(e.alpha);
        store(sum + at, x);
    }
    for (int64_t i = 0; i < rows; ++i)
        if (c_column == 1)
            for (int64_t j = 0; j < columns; j += N) {
                const int lanes = int(least(columns - j, N));
                T* c = C + i * c_row + j;
                const Vector<T> x = load(sum + i * width + j);
                store(c, e.accumulate ? load(c, lanes) + x : x, lanes);
            }
        else
            for (int64_t j = 0; j < columns; ++j) {
                T* c = C + i * c_row + j * c_column;
                *c = e.accumulate ? *c + sum[i * width + j] : sum[i * width + j];
            }
}

template <class T>
void gemm_blocked(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
                  const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, int64_t block, void* workspace) {
    constexpr int64_t N = LANES<T>;
    if (n <= 0 || m <= 0) return;
    int64_t c_row = ldc, c_column = 1;
    if (m < N / 2 && n > m) {  // C^T = op(B)^T op(A)^T fills the vectors
        const T* const matrix = A;
        A = B, B = matrix;
        int64_t number = lda;
        lda = ldb, ldb = number, number = n, n = m, m = number;
        const bool transposed = a_transposed;
        a_transposed = !b_transposed, b_transposed = !transposed;
        c_row = 1, c_column = ldc;
    }
    const int64_t a_row = a_transposed ? 1 : lda, a_term = a_transposed ? lda : 1;
    const bool large = n * m * k > (1 << 22);
    T* const panel = (T*)workspace;
    T* const packed = (T*)((char*)workspace + PANEL_BYTES);
    T* const parked = (T*)((char*)workspace + PANEL_BYTES + PACKED_BYTES);

    // Rows and columns that are worked on together: all, unless A is packed or sums have to wait.
    int64_t most_rows = large ? PACKED_ROWS : n, most_columns = m;
    const int64_t blocks = pieces(k, block);
    if (k > least(block, TERMS)) {
        const int64_t levels = blocks > 1 ? 65 - __builtin_clzll(uint64_t(blocks - 1)) : 1;
        const int64_t room = PARKED_BYTES / int64_t(sizeof(T)) / levels;
        most_rows = PACKED_ROWS;
        while (most_rows * most_rows > 2 * room) most_rows /= 2;
        most_columns = room / most_rows / N * N;
    }
    for (int64_t i0 = 0; i0 < n; i0 += most_rows)
        for (int64_t j0 = 0; j0 < m; j0 += most_columns) {
            const int64_t some_rows = least(n - i0, most_rows), some_columns = least(m - j0, most_columns);
            const int64_t level_size = some_rows * pieces(some_columns, N) * N;
            int64_t p0 = 0, terms = 0;
            do {
                const int64_t index = k > 0 ? p0 / block : 0, block_end = least(k, (index + 1) * block);
                terms = k > 0 ? next_piece(block_end - p0, pieces(block_end - p0, TERMS)) : 0;
                const bool first = p0 == index * block, block_done = p0 + terms == block_end, done = p0 + terms == k;
                const int level = __builtin_ctzll(~uint64_t(index));
                Epilogue<T> epilogue = {parked, level_size, 0, T(1), false};
                if (done) epilogue.levels = uint64_t(index), epilogue.alpha = alpha, epilogue.accumulate = accumulate;
                else if (block_done) epilogue.levels = (uint64_t(1) << level) - 1;
                const bool simple = done ? !epilogue.levels && alpha == T(1) && !accumulate && c_column == 1 : !epilogue.levels;
                int64_t offset = 0;
                for (int64_t j = 0, strips = pieces(pieces(some_columns, N), TILE_VECTORS); j < some_columns; --strips) {
                    const int64_t vectors = next_piece(pieces(some_columns - j, N), strips);
                    const int64_t columns = least(some_columns - j, vectors * N);
                    const T* from_b = b_transposed ? B + (j0 + j) * ldb + p0 : B + p0 * ldb + j0 + j;
                    const bool copy = b_transposed || large || columns < vectors * N;
                    if (copy) pack_panel(b_transposed, terms, columns, from_b, ldb, panel);
                    for (int64_t i = 0, tiles = pieces(some_rows, tile_rows(int(vectors))); i < some_rows; --tiles) {
                        const int64_t rows = next_piece(some_rows - i, tiles), size = vectors * N;
                        const T* from_a = A + (i0 + i) * a_row + p0 * a_term;
                        int64_t row = a_row, term = a_term;
                        (void)packed;
                        alignas(64) T sum[ACCUMULATORS * N];
                        T* const here = parked + offset;
                        Tile<T> tile = {terms, from_a, row * int64_t(sizeof(T)), term * int64_t(sizeof(T)),
                                        copy ? panel : from_b, (copy ? size : ldb) * int64_t(sizeof(T)),
                                        first ? nullptr : here + level * level_size, sum, size, int(N)};
                        T* const c = C + (i0 + i) * c_row + (j0 + j) * c_column;
                        if (simple && done) tile.to = c, tile.to_row = c_row, tile.last = int(columns - (vectors - 1) * N);
                        else if (simple) tile.to = here + level * level_size;
                        run_tile<T>(tile, rows, vectors);
                        if (!simple) {
                            epilogue.parked = here;
                            if (done) finish_tile(epilogue, sum, rows, columns, c, c_row, c_column);
                            else finish_tile(epilogue, sum, rows, size, here + level * level_size, size, 1);
                        }
                        i += rows, offset += rows * size;
                    }
                    j += columns;
                }
                p0 += terms;
            } while (p0 < k);
        }
}

template <class T>
void gemm(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
          const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, void* workspace) {
    gemm_blocked(a_transposed, b_transposed, n, m, k, alpha, A, lda, B, ldb, accumulate, C, ldc, k > 0 ? k : 1, workspace);
}

}  // namespace
