// Matrix products against a scalar chain of fused multiply-adds: every number must have the same bits (any NaN is equal to
// any other). Operands end or begin at a page that may not be touched; what lies between rows must stay as it was, and
// under AddressSanitizer it may not be read. Prints what was checked; returns 1 at the first wrong number.
//
// gemm_test [n]: every n-th product alone, n odd so that all transpositions come.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "asan.h"

#include "../cpu/gemm.h"

namespace {

uint64_t state = 88172645463325252u;
uint64_t random_bits() {  // xorshift64
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return state;
}
int64_t random_below(int64_t n) { return int64_t((random_bits() >> 11) % uint64_t(n)); }

template <class T> T random_number(bool special) {
    if (special && random_below(40) == 0) {
        const T tiny = sizeof(T) == 4 ? T(1e-44f) : T(5e-324), huge = sizeof(T) == 4 ? T(3e38f) : T(1.7e308);
        const T choices[] = {T(0), -T(0), T(INFINITY), -T(INFINITY), T(NAN), tiny, -tiny, huge, -huge, T(1e-20)};
        return choices[random_below(10)];
    }
    return T(int64_t(random_bits() >> 11)) / T(int64_t(1) << 52) - T(1);
}

// Pages for one matrix between two that may not be touched.
struct Pages {
    char* start;
    size_t size;
    explicit Pages(size_t bytes) {
        const size_t page = size_t(sysconf(_SC_PAGESIZE));
        size = (bytes / page + 1) * page;
        start = (char*)mmap(nullptr, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + page;
        if (mprotect(start, size, PROT_READ | PROT_WRITE) != 0) abort();
    }
};

template <class T> struct Matrix {
    int64_t rows, columns, stride;
    T* data;
    static Pages& pages(int which) {
        static Pages all[4] = {Pages(40 << 20), Pages(40 << 20), Pages(40 << 20), Pages(40 << 20)};
        return all[which];
    }
    Matrix(int which, int64_t rows, int64_t columns, int64_t gap, bool special)
        : rows(rows), columns(columns), stride(columns + gap) {
        Pages& p = pages(which);
        const size_t bytes = size_t(rows > 0 ? (rows - 1) * stride + columns : 0) * sizeof(T);
        if (bytes > p.size) abort();
        ASAN_UNPOISON_MEMORY_REGION(p.start, p.size);
        data = (T*)(random_below(2) ? p.start : p.start + p.size - bytes);
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t j = 0; j < (i < rows - 1 ? stride : columns); ++j)
                data[i * stride + j] = j < columns ? random_number<T>(special) : T(12345);
    }
    void poison_gaps() const {
        for (int64_t i = 0; i < rows - 1; ++i)
            ASAN_POISON_MEMORY_REGION(data + i * stride + columns, size_t(stride - columns) * sizeof(T));
    }
    bool gaps_untouched() const {
        for (int64_t i = 0; i < rows - 1; ++i)
            for (int64_t j = columns; j < stride; ++j)
                if (data[i * stride + j] != T(12345)) return false;
        return true;
    }
};

float scalar_fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
double scalar_fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

struct Case {
    bool a_transposed, b_transposed;
    int64_t n, m, k, block;  // block 0: not blocked
    double alpha;
    bool accumulate, special;
};

// The definition: a chain in each block; equal levels merge, and at the end the rest, from the smallest to the largest.
template <class T> T expected(const Case& c, const Matrix<T>& A, const Matrix<T>& B, int64_t i, int64_t j, T old) {
    T sums[64], total = 0;
    int levels[64], depth = 0;
    const int64_t block = c.block ? c.block : c.k;
    for (int64_t start = 0; start < c.k; start += block) {
        T chain = 0;
        for (int64_t p = start; p < c.k && p < start + block; ++p)
            chain = scalar_fma(c.a_transposed ? A.data[p * A.stride + i] : A.data[i * A.stride + p],
                               c.b_transposed ? B.data[j * B.stride + p] : B.data[p * B.stride + j], chain);
        sums[depth] = chain, levels[depth++] = 0;
        for (; depth > 1 && levels[depth - 2] == levels[depth - 1]; --depth)
            sums[depth - 2] += sums[depth - 1], ++levels[depth - 2];
    }
    for (; depth > 1; --depth) sums[depth - 2] += sums[depth - 1];
    if (depth) total = sums[0];
    if (c.alpha != 1) total *= T(c.alpha);
    return c.accumulate ? old + total : total;
}

template <class T> bool same_bits(T a, T b) { return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b); }

int64_t checked = 0, products = 0, sample = 1;

template <class T> void check(const Case& c) {
    if (products++ % sample) return;
    const int64_t gaps[] = {0, 0, 1, 3, 16, 61};
    const Matrix<T> A(0, c.a_transposed ? c.k : c.n, c.a_transposed ? c.n : c.k, gaps[random_below(6)], c.special);
    const Matrix<T> B(1, c.b_transposed ? c.m : c.k, c.b_transposed ? c.k : c.m, gaps[random_below(6)], c.special);
    const Matrix<T> C(2, c.n, c.m, gaps[random_below(6)], c.special);
    T* const before = (T*)Matrix<T>::pages(3).start;
    for (int64_t i = 0; i < c.n; ++i) memcpy(before + i * c.m, C.data + i * C.stride, size_t(c.m) * sizeof(T));
    static Pages workspace(GEMM_WORKSPACE_BYTES);
    char* const work = workspace.start + (workspace.size - GEMM_WORKSPACE_BYTES) / 64 * 64;

    A.poison_gaps(), B.poison_gaps(), C.poison_gaps();
    if (c.block)
        gemm_blocked<T>(c.a_transposed, c.b_transposed, c.n, c.m, c.k, T(c.alpha), A.data, A.stride, B.data, B.stride,
                        c.accumulate, C.data, C.stride, c.block, work);
    else
        gemm<T>(c.a_transposed, c.b_transposed, c.n, c.m, c.k, T(c.alpha), A.data, A.stride, B.data, B.stride, c.accumulate,
                C.data, C.stride, work);
    for (int which = 0; which < 3; ++which)
        ASAN_UNPOISON_MEMORY_REGION(Matrix<T>::pages(which).start, Matrix<T>::pages(which).size);

    bool right = A.gaps_untouched() && B.gaps_untouched() && C.gaps_untouched();
    int64_t row = -1, column = -1;
    // Of a large product only some numbers: of every row, and in turn of every column.
    const int64_t step = 1 + c.n * c.m * c.k / 2000000;
    for (int64_t i = 0; right && i < c.n; ++i)
        for (int64_t j = i % step; right && j < c.m; j += step) {
            right = same_bits(C.data[i * C.stride + j], expected<T>(c, A, B, i, j, before[i * c.m + j]));
            row = i, column = j;
        }
    ++checked;
    if (right) return;
    printf("wrong: %s %c%c n %lld m %lld k %lld block %lld alpha %g%s%s, at %lld, %lld\n",
           sizeof(T) == 4 ? "float" : "double", c.a_transposed ? 'T' : 'N', c.b_transposed ? 'T' : 'N', (long long)c.n,
           (long long)c.m, (long long)c.k, (long long)c.block, c.alpha, c.accumulate ? " accumulate" : "",
           c.special ? " special" : "", (long long)row, (long long)column);
    exit(1);
}

template <class T> void check_transpositions(Case c) {
    for (int i = 0; i < 4; ++i) {
        c.a_transposed = i & 1, c.b_transposed = i & 2;
        c.alpha = random_below(3) ? 1 : -0.3, c.accumulate = random_below(3) == 0, c.special = random_below(4) == 0;
        check<T>(c);
    }
}

template <class T> void check_all() {
    const int64_t sizes[] = {0,  1,  2,  3,  4,  5,  7,  8,  9,  11, 12, 13, 15, 16, 17,
                             23, 24, 25, 31, 32, 33, 47, 48, 49, 50, 63, 64, 65, 97};
    const int64_t depths[] = {0, 1, 2, 3, 7, 16, 30, 31, 32, 64, 255, 256, 257, 511, 512, 513, 784};
    const int64_t few_blocks[] = {1, 5, 256};
    const int64_t blocks[] = {0, 0, 1, 2, 3, 7, 16, 100, 256, 300, 10000};
    for (int64_t n : sizes)  // each pair of rows and columns
        for (int64_t m : sizes) check_transpositions<T>({false, false, n, m, random_below(20), 0, 1, false, false});
    for (int64_t k : depths)
        for (int64_t block : blocks)
            for (int turn = 0; turn < 3; ++turn) {
                const int64_t n = sizes[random_below(29)], m = sizes[random_below(29)];
                check_transpositions<T>({false, false, n, m, k, block, 1, false, false});
            }
    for (int64_t count = 1; count <= 40; ++count)  // numbers of blocks, the last of them whole or not
        for (int64_t block : few_blocks) {
            const int64_t n = 1 + random_below(20), m = 1 + random_below(70), k = count * block - random_below(block);
            check_transpositions<T>({false, false, n, m, k, block, 1, false, false});
        }
    const int64_t large[][4] = {{200, 300, 301, 0},    {383, 130, 600, 0},    {385, 200, 257, 0},   {1000, 70, 64, 0},
                                {131, 1030, 129, 0},   {769, 97, 520, 256},   {64, 64, 5000, 256},  {401, 499, 1100, 256},
                                {1050, 530, 700, 300}, {10, 784, 2049, 256},  {3000, 2, 700, 0},    {2, 3000, 700, 0},
                                {1, 4001, 1024, 0},    {4001, 1, 1024, 0},    {1050, 1100, 300, 0}};
    for (const int64_t* s : large) check_transpositions<T>({false, false, s[0], s[1], s[2], s[3], 1, false, false});
}

}  // namespace

int main(int count, char** arguments) {
    if (count > 1) sample = atoi(arguments[1]);
    check_all<float>();
    check_all<double>();
    printf("%lld products, vectors of %d bytes: the bits of the scalar chain\n", (long long)checked, VECTOR_BYTES);
    return 0;
}
