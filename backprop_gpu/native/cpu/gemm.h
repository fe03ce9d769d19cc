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
constexpr int ACCUMULATORS = 24, STRIP_VECTORS = 3, TERMS = 256;
#elif defined(__AVX2__)
constexpr int ACCUMULATORS = 12, STRIP_VECTORS = 2, TERMS = 256;
#else
constexpr int ACCUMULATORS = 24, STRIP_VECTORS = 4, TERMS = 256;
#endif
// A tile is at most ACCUMULATORS / vectors rows high, and not more than 12; a flat one, of 1 to 3 rows, is FLAT_VECTORS wide.
constexpr int MAX_ROWS = 12, FLAT_ROWS = 3, FLAT_VECTORS = ACCUMULATORS / FLAT_ROWS;
constexpr int tile_rows(int vectors) { return ACCUMULATORS / vectors < MAX_ROWS ? ACCUMULATORS / vectors : MAX_ROWS; }

constexpr int64_t PANEL_BYTES = TERMS * FLAT_VECTORS * VECTOR_BYTES, PACKED_BYTES = 1 << 20, PARKED_BYTES = 4 << 20;
constexpr size_t GEMM_WORKSPACE_BYTES = PANEL_BYTES + PACKED_BYTES + PARKED_BYTES;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t whole_vectors(int64_t numbers, int64_t lanes) { return (numbers + lanes - 1) / lanes; }
// The next piece of what is left: `most`, but the last two pieces are of nearly equal size.
INLINE int64_t next_piece(int64_t left, int64_t most) { return left >= 2 * most ? most : left > most ? (left + 1) / 2 : left; }

template <class T> INLINE void prefetch_numbers(const T* from, int64_t count) {
    for (int64_t at = 0; at < count; at += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + at);
}

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

template <class T> using TileFunction = void (*)(const Tile<T>&);

// Functions for tiles of 1, 2, ... rows.
template <class T, int VECTORS, int... I> INLINE const TileFunction<T>* tile_functions(Indices<I...>) {
    static constexpr TileFunction<T> functions[] = {compute_tile<T, I + 1, VECTORS>...};
    return functions;
}
template <class T, int VECTORS = STRIP_VECTORS> INLINE const TileFunction<T>* tile_functions(int64_t vectors) {
    if (vectors == VECTORS) return tile_functions<T, VECTORS>(typename IndicesUpTo<tile_rows(VECTORS)>::Type());
    if constexpr (VECTORS > 1) return tile_functions<T, VECTORS - 1>(vectors);
    return tile_functions<T, FLAT_VECTORS>(typename IndicesUpTo<FLAT_ROWS>::Type());
}

// panel[p][c] <- op(B)[p][c] for p < terms, c < columns; columns are filled with 0 to whole vectors.
template <class T> void pack_panel(bool transposed, int64_t terms, int64_t columns, const T* B, int64_t ldb, T* panel) {
    constexpr int N = LANES<T>;
    const int64_t width = whole_vectors(columns, N) * N;
    if (!transposed) {
        const int64_t whole = columns / N * N;
        for (int64_t p = 0; p < terms; ++p, B += ldb, panel += width) {
            for (int64_t c = 0; c < whole; c += N) store(panel + c, load(B + c));
            if (whole < columns) store(panel + whole, load(B + whole, int(columns - whole)));
        }
        return;
    }
    for (int64_t c = 0; c < columns; c += N)
        for (int64_t p = 0; p < terms; p += N) {
            const int lanes = int(least(columns - c, N)), depth = int(least(terms - p, N));
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
    const int64_t width = whole_vectors(columns, N) * N;
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

template <class T> struct Product {
    bool a_transposed, b_transposed;
    int64_t n, m, k;
    T alpha;
    const T* A;
    int64_t lda;
    const T* B;
    int64_t ldb;
    bool accumulate;
    T* C;
    int64_t c_row, c_column;  // strides; one of them is 1
    int64_t block;
    char* workspace;
};

// A part of C (rows from i0, columns from j0) and a stretch of k (terms from p0), which continues or begins the chains.
struct Part {
    int64_t i0, j0, rows, columns, p0, terms;
    bool begins, ends;    // this block's chains
    bool last;            // ends the last block's
    uint64_t index;       // of the block
};

template <class T> void multiply_part(const Product<T>& x, const Part& part, bool pack_a, bool pack_b, bool prefetch) {
    constexpr int64_t N = LANES<T>, SIZE = sizeof(T);
    T* const panel = (T*)x.workspace;
    T* const packed = (T*)(x.workspace + PANEL_BYTES);
    T* parked = (T*)(x.workspace + PANEL_BYTES + PACKED_BYTES);  // of the next tile
    const int level = __builtin_ctzll(~part.index);
    const int64_t level_size = part.rows * whole_vectors(part.columns, N) * N, slot = level * level_size;
    Epilogue<T> epilogue = {nullptr, level_size, 0, T(1), false};
    if (part.last) epilogue.levels = part.index, epilogue.alpha = x.alpha, epilogue.accumulate = x.accumulate;
    else if (part.ends) epilogue.levels = (uint64_t(1) << level) - 1;
    const bool to_c = part.last && !epilogue.levels && x.alpha == T(1) && !x.accumulate && x.c_column == 1;
    const bool to_parked = !part.last && !epilogue.levels;

    const T* a = x.A + (x.a_transposed ? part.p0 * x.lda + part.i0 : part.i0 * x.lda + part.p0);
    int64_t a_row = x.a_transposed ? 1 : x.lda, a_term = x.a_transposed ? x.lda : 1;
    if (pack_a) {
        pack_panel(x.a_transposed, part.rows, part.terms, a, x.lda, packed);
        a = packed, a_row = whole_vectors(part.terms, N) * N, a_term = 1;
    }
    alignas(64) T sum[ACCUMULATORS * N];
    Tile<T> tile;
    tile.k = part.terms, tile.a_row = a_row * SIZE, tile.a_term = a_term * SIZE;
    for (int64_t j = 0; j < part.columns;) {
        const int64_t left = whole_vectors(part.columns - j, N);
        const int64_t vectors = part.rows <= FLAT_ROWS && left >= FLAT_VECTORS ? FLAT_VECTORS : next_piece(left, STRIP_VECTORS);
        const int64_t width = vectors * N, columns = least(part.columns - j, width);
        const T* const tile_b = x.b_transposed ? x.B + (part.j0 + j) * x.ldb + part.p0 : x.B + part.p0 * x.ldb + part.j0 + j;
        tile.b = tile_b, tile.b_term = x.ldb * SIZE;
        if (x.b_transposed || pack_b || columns < width) {
            pack_panel(x.b_transposed, part.terms, columns, tile_b, x.ldb, panel);
            tile.b = panel, tile.b_term = width * SIZE;
        }
        const TileFunction<T>* const functions = tile_functions<T>(vectors);
        const int64_t most = vectors == FLAT_VECTORS ? FLAT_ROWS : tile_rows(int(vectors));
        for (int64_t i = 0, rows; i < part.rows; i += rows, parked += rows * width) {
            rows = next_piece(part.rows - i, most);
            if (prefetch) {  // a share of the next panel is on its way to the caches while this tile is computed
                const T* next = tile_b + (x.b_transposed ? width * x.ldb : width);
                const int64_t lines = x.b_transposed ? width : part.terms, length = x.b_transposed ? part.terms : width;
                for (int64_t l = lines * i / part.rows; l < lines * (i + rows) / part.rows; ++l)
                    prefetch_numbers(next + l * x.ldb, length + 64 / SIZE);
            }
            T* const c = x.C + (part.i0 + i) * x.c_row + (part.j0 + j) * x.c_column;
            tile.a = a + i * a_row;
            tile.from = part.begins ? nullptr : parked + slot;
            tile.to = to_c ? c : to_parked ? parked + slot : sum;
            tile.to_row = to_c ? x.c_row : width;
            tile.last = int(to_c ? N - width + columns : N);
            if (!part.begins) prefetch_numbers(tile.from + rows * width, rows * width);  // of the next tile
            for (uint64_t levels = epilogue.levels; levels; levels &= levels - 1)
                prefetch_numbers(parked + __builtin_ctzll(levels) * level_size, rows * width);
            functions[rows - 1](tile);
            if (to_c || to_parked) continue;
            epilogue.parked = parked;
            if (part.last) finish_tile(epilogue, sum, rows, columns, c, x.c_row, x.c_column);
            else finish_tile(epilogue, sum, rows, width, parked + slot, width, 1);
        }
        j += columns;
    }
}

template <class T> void multiply(const Product<T>& x) {
    constexpr int64_t N = LANES<T>, SIZE = sizeof(T);
    const int64_t a_bytes = x.n * x.k * SIZE, b_bytes = x.k * x.m * SIZE;
    const bool pack_a = x.n >= 64 && (x.a_transposed ? x.m >= 256 && a_bytes > 256 << 10 : x.m >= 512 && a_bytes > 2 << 20);
    const bool prefetch = x.n >= 48 && b_bytes > 1 << 20, pack_b = prefetch && x.n >= 192;
    const int64_t packed_rows = PACKED_BYTES / (TERMS * SIZE);
    int64_t most_rows = pack_a ? packed_rows : x.n, most_columns = x.m;
    const bool one_stretch = x.k <= least(x.block, TERMS);
    if (!one_stretch) {  // sums wait in the workspace, for as many levels as the tree has
        const uint64_t blocks = uint64_t((x.k - 1) / x.block + 1);
        const int64_t levels = (blocks > 1 ? 64 - __builtin_clzll(blocks - 1) : 0) + (x.block > TERMS), room = PARKED_BYTES / SIZE / levels;
        most_rows = packed_rows;
        while (most_rows * most_rows > room) most_rows /= 2;
        most_columns = room / most_rows / N * N;
    }
    for (int64_t i0 = 0, rows, columns; i0 < x.n; i0 += rows) {
        rows = next_piece(x.n - i0, most_rows);
        for (int64_t j0 = 0; j0 < x.m; j0 += columns) {
            columns = least(x.m - j0, whole_vectors(next_piece(x.m - j0, most_columns), N) * N);
            Part part = {i0, j0, rows, columns, 0, x.k, true, true, true, 0};
            if (one_stretch) {
                multiply_part(x, part, pack_a, pack_b, prefetch);
                continue;
            }
            for (; part.p0 < x.k; part.p0 += part.terms) {
                part.index = uint64_t(part.p0 / x.block);
                const int64_t begin = int64_t(part.index) * x.block, end = x.k - begin < x.block ? x.k : begin + x.block;
                part.terms = next_piece(end - part.p0, TERMS);
                part.begins = part.p0 == begin, part.ends = part.p0 + part.terms == end, part.last = part.p0 + part.terms == x.k;
                multiply_part(x, part, pack_a, pack_b, prefetch);
            }
        }
    }
}

template <class T>
void gemm_blocked(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
                  const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, int64_t block, void* workspace) {
    if (n <= 0 || m <= 0) return;
    Product<T> x = {a_transposed, b_transposed, n, m, k, alpha, A, lda, B, ldb, accumulate, C, ldc, 1, block, (char*)workspace};
    constexpr int64_t N = LANES<T>;
    const int64_t tail = m % N;
    if (tail && k * (n - (a_transposed ? 0 : n / 3) - tail * whole_vectors(n, N)) > 2 * n * tail + 200) {
        x.m -= tail;
        if (x.m) multiply(x);
        x = {!b_transposed, !a_transposed, tail, n, k, alpha, B + (b_transposed ? (m - tail) * ldb : m - tail), ldb, A, lda, accumulate, C + m - tail, 1, ldc, block, (char*)workspace};
    }
    multiply(x);
}

template <class T>
void gemm(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
          const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, void* workspace) {
    gemm_blocked(a_transposed, b_transposed, n, m, k, alpha, A, lda, B, ldb, accumulate, C, ldc, k > 0 ? k : 1, workspace);
}

}  // namespace
