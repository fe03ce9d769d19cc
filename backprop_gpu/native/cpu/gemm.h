// Matrix products, C <- alpha op(A) op(B) [+ C], all matrices row-major.
//
// Order of sums: a number of C is one chain of fused multiply-adds over k, in increasing order and starting from 0; then it
// is multiplied by alpha (unless alpha is 1); then the old C is added if asked for. `gemm_blocked` makes such a chain of
// each block of terms and adds the blocks in a binary tree. Bits depend on nothing else: not on the instruction set, on
// tiles, or on how the caller cuts C. (Which of two NaNs survives is not specified.)
//
// Method: tiles of C that stay in registers (Goto and van de Geijn 2008; BLIS). A tile reads vectors along the rows of B and
// numbers of A one at a time. A strip of B is packed where it is transposed, ragged or large, and A where it is large.
// Between two stretches of k, sums are parked in the workspace, and their chains continue from there.
#pragma once
#include "vectors.h"

namespace {

// A strip of C is STRIP_VECTORS wide. A tile in it keeps at most ACCUMULATORS sums in registers, of which there are 32, or 16
// with AVX2. A stretch of k has at most TERMS terms: a packed strip of B then fits a first-level cache, or nearly.
#if defined(__AVX512F__)
constexpr int ACCUMULATORS = 24, STRIP_VECTORS = 3, TERMS = 256;
#elif defined(__AVX2__)
constexpr int ACCUMULATORS = 12, STRIP_VECTORS = 2, TERMS = 256;
#else
constexpr int ACCUMULATORS = 20, STRIP_VECTORS = 4, TERMS = 256;
#endif
// At most 12 rows, so that addresses stay in registers. 1 to 3 rows are taken FLAT_VECTORS wide, to have enough chains.
constexpr int MAX_ROWS = 12, FLAT_ROWS = 3, FLAT_VECTORS = ACCUMULATORS / FLAT_ROWS;
constexpr int tile_rows(int vectors) { return ACCUMULATORS / vectors < MAX_ROWS ? ACCUMULATORS / vectors : MAX_ROWS; }
// So many rows by a transposed B are computed without packing it, so many vectors at a time that chains overlap. For not many
// more it is packed in strips of a cache line, which costs least.
constexpr bool FEW_REGISTERS = ACCUMULATORS < 16;
constexpr int TRANSPOSED_ROWS = FEW_REGISTERS ? 3 : 4, PACKED_NARROW_ROWS = 64;
constexpr int transposed_vectors(int64_t rows) { return (rows < TRANSPOSED_ROWS ? 4 : 2) * GROUP_BYTES / VECTOR_BYTES; }
constexpr int LINE_VECTORS = 64 / VECTOR_BYTES < STRIP_VECTORS ? 64 / VECTOR_BYTES : STRIP_VECTORS;

// The workspace: a strip of B, packed rows of A (for a second-level cache), parked sums.
constexpr int64_t STRIP_BYTES = TERMS * FLAT_VECTORS * VECTOR_BYTES, ROWS_BYTES = 1 << 20, PARKED_BYTES = 4 << 20;
constexpr size_t GEMM_WORKSPACE_BYTES = STRIP_BYTES + ROWS_BYTES + PARKED_BYTES;

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t whole_vectors(int64_t numbers, int64_t lanes) { return (numbers + lanes - 1) / lanes; }
// The next piece of what is left: `most`, but the last two pieces are of nearly equal size.
INLINE int64_t next_piece(int64_t left, int64_t most) { return left >= 2 * most ? most : left > most ? (left + 1) / 2 : left; }

template <class T> INLINE void prefetch(const T* from, int64_t count) {
    for (int64_t at = 0; at < count; at += 64 / int64_t(sizeof(T))) __builtin_prefetch(from + at);
}

template <class T> struct Tile {
    int64_t k;
    const T* a;
    int64_t a_row, a_term;  // strides in bytes
    const T* b;
    int64_t b_term;  // in bytes
    const T* from;   // parked sums to begin with, or null: chains start from 0
    T* to;
    int64_t from_row, to_row;  // strides in numbers
    int columns;     // so many are stored
    int lines;       // of a transposed B, each a column
};

// V: the type of the vectors, Vector<T> or Group<T>.
template <class T, int ROWS, int VECTORS, class V> void compute_tile(const Tile<T>& t) {
    constexpr int N = int(sizeof(V) / sizeof(T));
    V sum[ROWS][VECTORS];
    if (t.from) {
        UNROLL for (int i = 0; i < ROWS; ++i)
            UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = load_as<V>(t.from + i * t.from_row + j * N);
    } else {
        UNROLL for (int i = 0; i < ROWS; ++i) UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = V{};
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
        V x[VECTORS];
        UNROLL for (int j = 0; j < VECTORS; ++j) {
            x[j] = load_as<V>((const T*)b + j * N);
            if (ROWS > 1 && ROWS < 4) hold(x[j]);  // or GCC loads it again for each row
        }
        UNROLL for (int i = 0; i < ROWS; ++i) {
            const V factor = *(const T*)(a[i / 4] + (i % 4 == 3 ? row3 : i % 4 * row)) - V{};  // x - 0 is x
            UNROLL for (int j = 0; j < VECTORS; ++j) sum[i][j] = fma(factor, x[j], sum[i][j]);
        }
        UNROLL for (int i = 0; i < BASES; ++i) a[i] += a_term;
        b += b_term;
    }
    T* to = t.to;
    const int64_t to_row = t.to_row;
    const int last = t.columns - (VECTORS - 1) * N;
    UNROLL for (int i = 0; i < ROWS; ++i, to += to_row) {
        UNROLL for (int j = 0; j < VECTORS - 1; ++j) store(to + j * N, sum[i][j]);
        T* end = to + (VECTORS - 1) * N;
        if (last == N) store(end, sum[i][VECTORS - 1]);
        else store(end, sum[i][VECTORS - 1], last);
    }
}

// N lines, `ld` apart, of which there are `count` from here on; where there are fewer than N, the last one takes their place.
template <class T, int N> INLINE void find_lines(const T* (&lines)[N], const T* first, int64_t count, int64_t ld) {
    UNROLL for (int i = 0; i < N; ++i) lines[i] = first + least(i, count - 1) * ld;
}

// The same where B is transposed, so that each of its lines belongs to a column of C: it is transposed in registers.
template <class T, int ROWS, int VECTORS> void compute_transposed_tile(const Tile<T>& t) {
    constexpr int G = GROUP<T>, P = PIECE<T>, GROUPS = VECTORS * VECTOR_BYTES / GROUP_BYTES;
    const int columns = t.columns;
    const T* lines[GROUPS * G];
    find_lines(lines, t.b, t.lines, t.b_term / int64_t(sizeof(T)));
    Group<T> sum[ROWS][GROUPS];
    UNROLL for (int i = 0; i < ROWS; ++i)
        UNROLL for (int j = 0; j < GROUPS; ++j) sum[i][j] = t.from ? load_as<Group<T>>(t.from + i * t.from_row + j * G) : Group<T>{};
    const char* a = (const char*)t.a;
    int64_t p = 0;
    for (; p + P <= t.k; p += P, a += P * t.a_term)
        UNROLL for (int j = 0; j < GROUPS; ++j) {
            Group<T> x[P];
            load_transposed(lines + j * G, p, x);
            UNROLL for (int l = 0; l < P; ++l)
                UNROLL for (int i = 0; i < ROWS; ++i)
                    sum[i][j] = fma(*(const T*)(a + i * t.a_row + l * t.a_term) - Group<T>{}, x[l], sum[i][j]);
        }
    for (; p < t.k; ++p, a += t.a_term)
        UNROLL for (int j = 0; j < GROUPS; ++j) {
            Group<T> x;
            UNROLL for (int l = 0; l < G; ++l) x[l] = lines[j * G + l][p];
            UNROLL for (int i = 0; i < ROWS; ++i) sum[i][j] = fma(*(const T*)(a + i * t.a_row) - Group<T>{}, x, sum[i][j]);
        }
    T* to = t.to;
    for (int i = 0; i < ROWS; ++i, to += t.to_row) {
        if (columns == GROUPS * G) {
            UNROLL for (int j = 0; j < GROUPS; ++j) store(to + j * G, sum[i][j]);
        } else {
            UNROLL for (int j = 0; j < GROUPS; ++j)
                UNROLL for (int l = 0; l < G; ++l)
                    if (j * G + l < columns) to[j * G + l] = sum[i][j][l];
        }
    }
}

template <class T> using TileFunction = void (*)(const Tile<T>&);

// Functions for tiles of 1, 2, ... rows; narrow ones are one group wide.
template <class T, int VECTORS, class V = Vector<T>, int... I> INLINE const TileFunction<T>* tile_functions(Indices<I...>) {
    static constexpr TileFunction<T> functions[] = {compute_tile<T, I + 1, VECTORS, V>...};
    return functions;
}
template <class T> INLINE const TileFunction<T>* narrow_tile_functions() {
    return tile_functions<T, 1, Group<T>>(typename IndicesUpTo<tile_rows(1)>::Type());
}
template <class T, int VECTORS = STRIP_VECTORS> INLINE const TileFunction<T>* tile_functions(int64_t vectors) {
    if (vectors == VECTORS) return tile_functions<T, VECTORS>(typename IndicesUpTo<tile_rows(VECTORS)>::Type());
    if constexpr (VECTORS > 1) return tile_functions<T, VECTORS - 1>(vectors);
    return tile_functions<T, FLAT_VECTORS>(typename IndicesUpTo<FLAT_ROWS>::Type());
}

// The function for so many rows and vectors of a transposed B.
template <class T, int ROWS, int VECTORS = transposed_vectors(ROWS)> INLINE TileFunction<T> transposed_tile_of(int64_t vectors) {
    if constexpr (VECTORS > 1)
        if (vectors < VECTORS) return transposed_tile_of<T, ROWS, VECTORS - 1>(vectors);
    return compute_transposed_tile<T, ROWS, VECTORS>;
}
template <class T, int ROWS = TRANSPOSED_ROWS> INLINE TileFunction<T> transposed_tile(int64_t rows, int64_t vectors) {
    if constexpr (ROWS > 1)
        if (rows < ROWS) return transposed_tile<T, ROWS - 1>(rows, vectors);
    return transposed_tile_of<T, ROWS>(vectors);
}

// to <- op(from), rows x columns; rows of `to` are filled to whole vectors, with whatever numbers.
template <class T> void pack(bool transposed, int64_t rows, int64_t columns, const T* from, int64_t ld, T* to) {
    constexpr int N = LANES<T>;
    const int64_t whole = columns / N * N, width = whole_vectors(columns, N) * N;
    if (!transposed) {
        for (int64_t i = 0; i < rows; ++i, from += ld, to += width) {
            for (int64_t j = 0; j < whole; j += N) store(to + j, load(from + j));
            if (whole < columns) store(to + whole, load(from + whole, int(columns - whole)));
        }
        return;
    }
    constexpr int G = GROUP<T>, P = PIECE<T>;
    for (int64_t j = 0; j < width; j += G) {
        const T* lines[G];
        find_lines(lines, from + j * ld, columns - j, ld);
        int64_t i = 0;
        for (; i + P <= rows; i += P) {
            Group<T> places[P];
            load_transposed(lines, i, places);
            UNROLL for (int l = 0; l < P; ++l) store(to + (i + l) * width + j, places[l]);
        }
        for (; i < rows; ++i)
            for (int l = 0; l < G; ++l) to[i * width + j + l] = lines[l][i];
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
    int64_t c_row, c_column;  // strides, one of them 1
    int64_t block;
    char* workspace;
};

// A part of C, and the stretch of k for which it is computed.
template <class T> struct Stretch {
    int64_t i0, j0, rows, columns, p0, terms;
    bool begins, ends, last;  // whether a block's chains begin and end here, and whether it is the last block that ends
    bool pack_b, fetch_b;

    // The sums of block number `index` (from 0) join, as a binary counter counts, those of the levels at which `index` has
    // trailing ones, the last block's those of all its ones. Level l holds sums of 2^l blocks; unfinished chains are
    // parked where their sum will go.
    uint64_t index, levels_added;
    int64_t level_size, slot;

    bool to_c, to_parked;  // the tile's own stores are all that is to be done
    const T* a;
    int64_t a_row, a_term;
};

// Adds levels to a tile's sums and parks them, or finishes C.
template <class T>
void finish_tile(const Product<T>& x, const Stretch<T>& s, T* sum, const T* parked, int64_t rows, int64_t columns, T* C,
                 int64_t c_row, int64_t c_column) {
    constexpr int N = LANES<T>;
    const int64_t width = whole_vectors(columns, N) * N;
    for (int64_t at = 0; at < rows * width; at += N) {
        Vector<T> y = load(sum + at);
        for (uint64_t levels = s.levels_added; levels; levels &= levels - 1)
            y = load(parked + __builtin_ctzll(levels) * s.level_size + at) + y;
        if (s.last && x.alpha != T(1)) y = y * broadcast(x.alpha);
        store(sum + at, y);
    }
    const bool accumulate = s.last && x.accumulate;
    for (int64_t i = 0; i < rows; ++i, sum += width, C += c_row)
        if (c_column == 1)
            for (int64_t j = 0; j < columns; j += N) {
                const int lanes = int(least(columns - j, N));
                store(C + j, accumulate ? load(C + j, lanes) + load(sum + j) : load(sum + j), lanes);
            }
        else
            for (int64_t j = 0; j < columns; ++j) {
                T& c = C[j * c_column];
                c = accumulate ? c + sum[j] : sum[j];
            }
}

// Columns from j of the part; their parked sums begin at `parked`.
template <class T>
void multiply_strip(const Product<T>& x, const Stretch<T>& s, int64_t j, int64_t columns, int64_t vectors, T* parked) {
    constexpr int64_t N = LANES<T>, SIZE = sizeof(T);
    const int64_t width = vectors * N, most_rows = vectors == FLAT_VECTORS ? FLAT_ROWS : tile_rows(int(vectors));
    const T* const b = x.b_transposed ? x.B + (s.j0 + j) * x.ldb + s.p0 : x.B + s.p0 * x.ldb + s.j0 + j;
    const bool in_registers = x.b_transposed && s.rows <= TRANSPOSED_ROWS;
    const int64_t computed = columns <= GROUP<T> && !in_registers ? GROUP<T> : width;  // columns of a tile
    Tile<T> tile = {s.terms, s.a, s.a_row * SIZE, s.a_term * SIZE, b, x.ldb * SIZE, nullptr, nullptr, width, 0, 0, int(columns)};
    if (!in_registers && (x.b_transposed || s.pack_b || columns < computed)) {
        pack(x.b_transposed, s.terms, columns, b, x.ldb, (T*)x.workspace);
        tile.b = (T*)x.workspace, tile.b_term = width * SIZE;
    }
    const TileFunction<T>* const functions = computed < N ? narrow_tile_functions<T>() : tile_functions<T>(vectors);
    alignas(64) T sum[ACCUMULATORS * N];
    for (int64_t i = 0, rows; i < s.rows; i += rows, parked += rows * width) {
        rows = next_piece(s.rows - i, most_rows);
        if (s.fetch_b) {  // a share of the next strip of B is on its way while this tile is computed
            const T* const next = b + (x.b_transposed ? width * x.ldb : width);
            const int64_t lines = x.b_transposed ? width : s.terms, length = x.b_transposed ? s.terms : width;
            for (int64_t l = lines * i / s.rows; l < lines * (i + rows) / s.rows; ++l)
                prefetch(next + l * x.ldb, length + 64 / SIZE);
        }
        T *const slot = parked + s.slot, *const c = x.C + (s.i0 + i) * x.c_row + (s.j0 + j) * x.c_column;
        if (!s.begins) prefetch(slot + rows * width, rows * width);  // the next tile's
        for (uint64_t levels = s.levels_added; levels; levels &= levels - 1)
            prefetch(parked + __builtin_ctzll(levels) * s.level_size, rows * width);
        tile.a = s.a + i * s.a_row;
        tile.from = s.begins ? nullptr : slot;
        tile.to = s.to_c ? c : s.to_parked ? slot : sum;
        tile.to_row = s.to_c ? x.c_row : width;
        tile.columns = int(s.to_c ? columns : computed);
        in_registers ? transposed_tile<T>(rows, vectors)(tile) : functions[rows - 1](tile);
        if (s.to_c || s.to_parked) continue;
        if (s.last) finish_tile(x, s, sum, parked, rows, columns, c, x.c_row, x.c_column);
        else finish_tile(x, s, sum, parked, rows, width, slot, width, 1);
    }
}

// How wide the next strip is, when so many vectors of columns are left.
INLINE int64_t strip_vectors(bool b_transposed, int64_t rows, int64_t left) {
    if (b_transposed && rows <= TRANSPOSED_ROWS) return least(left, transposed_vectors(rows));
    if (b_transposed && rows <= PACKED_NARROW_ROWS) return least(left, LINE_VECTORS);
    return rows <= FLAT_ROWS && left >= FLAT_VECTORS ? FLAT_VECTORS : next_piece(left, STRIP_VECTORS);
}

template <class T> void multiply_stretch(const Product<T>& x, Stretch<T>& s, bool pack_a) {
    constexpr int64_t N = LANES<T>;
    const int level = __builtin_ctzll(~s.index);
    s.levels_added = s.last ? s.index : s.ends ? (uint64_t(1) << level) - 1 : 0;
    s.level_size = s.rows * whole_vectors(s.columns, N) * N;
    s.slot = level * s.level_size;
    s.to_c = s.last && !s.levels_added && x.alpha == T(1) && !x.accumulate && x.c_column == 1;
    s.to_parked = !s.last && !s.levels_added;
    s.a = x.A + (x.a_transposed ? s.p0 * x.lda + s.i0 : s.i0 * x.lda + s.p0);
    s.a_row = x.a_transposed ? 1 : x.lda, s.a_term = x.a_transposed ? x.lda : 1;
    if (pack_a) {
        T* const packed = (T*)(x.workspace + STRIP_BYTES);
        pack(x.a_transposed, s.rows, s.terms, s.a, x.lda, packed);
        s.a = packed, s.a_row = whole_vectors(s.terms, N) * N, s.a_term = 1;
    }
    T* parked = (T*)(x.workspace + STRIP_BYTES + ROWS_BYTES);
    for (int64_t j = 0; j < s.columns;) {
        const int64_t vectors = strip_vectors(x.b_transposed, s.rows, whole_vectors(s.columns - j, N));
        const int64_t columns = least(s.columns - j, vectors * N);
        multiply_strip(x, s, j, columns, vectors, parked);
        j += columns, parked += s.rows * vectors * N;
    }
}

template <class T> void multiply(const Product<T>& x) {
    constexpr int64_t N = LANES<T>, SIZE = sizeof(T), KB = 1 << 10, MB = 1 << 20;
    // Measured. Strips as narrow as a cache line are packed early: unpacked, each term of theirs lies in another page.
    constexpr bool NARROW = STRIP_VECTORS * VECTOR_BYTES <= 64;
    const int64_t a_bytes = x.n * x.k * SIZE, b_bytes = x.k * x.m * SIZE;
    const bool fetch_b = x.n >= 48 && b_bytes > MB;
    const bool pack_b = NARROW ? x.n >= 24 && b_bytes > 32 * KB : x.n >= 192 && b_bytes > MB;
    const bool pack_a = x.a_transposed ? x.n >= 64 && x.m >= (NARROW ? 96 : 128) && a_bytes > (NARROW ? 64 : 512) * KB
                                       : x.n >= 64 && x.m >= 512 && a_bytes > 2 * MB;
    const bool one_stretch = x.k <= least(x.block, TERMS);
    const int64_t packed_rows = ROWS_BYTES / (TERMS * SIZE);
    int64_t most_rows = pack_a ? packed_rows : x.n, most_columns = x.m;
    if (!one_stretch) {  // the parked sums of all levels must fit
        const uint64_t blocks = uint64_t((x.k - 1) / x.block + 1);
        const int64_t levels = (blocks > 1 ? 64 - __builtin_clzll(blocks - 1) : 0) + (x.block > TERMS);
        const int64_t room = PARKED_BYTES / SIZE / levels;
        most_rows = packed_rows;
        while (most_rows * most_rows > room) most_rows /= 2;
        most_columns = room / most_rows / N * N;
    }
    for (int64_t i0 = 0, rows, columns; i0 < x.n; i0 += rows) {
        rows = next_piece(x.n - i0, most_rows);
        for (int64_t j0 = 0; j0 < x.m; j0 += columns) {
            columns = least(x.m - j0, whole_vectors(next_piece(x.m - j0, most_columns), N) * N);
            Stretch<T> s = {};
            s.i0 = i0, s.j0 = j0, s.rows = rows, s.columns = columns, s.pack_b = pack_b, s.fetch_b = fetch_b;
            do {
                s.index = one_stretch ? 0 : uint64_t(s.p0 / x.block);
                const int64_t begin = int64_t(s.index) * x.block, end = x.k - begin < x.block ? x.k : begin + x.block;
                s.terms = next_piece(end - s.p0, TERMS);
                s.begins = s.p0 == begin, s.ends = s.p0 + s.terms == end, s.last = s.p0 + s.terms == x.k;
                multiply_stretch(x, s, pack_a);
                s.p0 += s.terms;
            } while (s.p0 < x.k);
        }
    }
}

// op(A) n x k, op(B) k x m, C n x m; `block` > 0 terms of k to a block; `workspace`: GEMM_WORKSPACE_BYTES, best at a
// multiple of 64, that hold nothing between calls. C overlaps neither A nor B; nothing outside the three is touched.
template <class T>
void gemm_blocked(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
                  const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, int64_t block, void* workspace) {
    if (n <= 0 || m <= 0) return;
    char* const work = (char*)workspace;
    Product<T> x = {a_transposed, b_transposed, n, m, k, alpha, A, lda, B, ldb, accumulate, C, ldc, 1, block, work};
    // Columns that leave most of a vector empty are computed as rows of C^T = op(B)^T op(A)^T where that is less work: vector
    // operations for each term saved, those that transpose A included, against one scalar store a number. (Measured: a
    // group's cost 0.6 of a vector's.)
    const int64_t tail = m % LANES<T>, first = m - tail, direct = VECTOR_BYTES > GROUP_BYTES && m <= GROUP<T> ? 3 * n / 5 : n;
    const int64_t saved = direct - (tail + (a_transposed ? 1 : 2)) * whole_vectors(n, LANES<T>);
    if (tail && 2 * k * saved + 400 > 3 * n * tail) {
        x.m = first;
        if (first) multiply(x);
        B += b_transposed ? first * ldb : first, C += first;
        x = {!b_transposed, !a_transposed, tail, n, k, alpha, B, ldb, A, lda, accumulate, C, 1, ldc, block, work};
    }
    multiply(x);
}

template <class T>
void gemm(bool a_transposed, bool b_transposed, int64_t n, int64_t m, int64_t k, T alpha, const T* A, int64_t lda,
          const T* B, int64_t ldb, bool accumulate, T* C, int64_t ldc, void* workspace) {
    gemm_blocked(a_transposed, b_transposed, n, m, k, alpha, A, lda, B, ldb, accumulate, C, ldc, k > 0 ? k : 1, workspace);
}

}  // namespace
