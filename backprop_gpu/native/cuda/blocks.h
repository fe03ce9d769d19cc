// What every CUDA kernel is written in: the number type, how work is laid over threads, and sums in the order of
// cpu/sums.h. No float is ever added atomically.
//
// A block has THREADS threads. compile.py says what REAL and THREADS are. SHARED declares memory that a block shares; the
// tests' emulation has a definition of its own.
#pragma once
#include "../formulas/real.h"

#ifndef SHARED
#define SHARED(type, name, count) __shared__ type name[count]
#endif

typedef REAL real;
typedef long long integer;  // every argument of a kernel is eight bytes: a pointer, an integer or a double

static_assert(THREADS == 256, "sums have blocks of 256 terms");
constexpr integer BLOCK = 256;  // terms of a block of a sum
constexpr int PARTIALS = 32;    // partial sums of a block: term i goes to partial sum i mod 32

// A matrix of (units, examples) with any strides; null: there is none.
template <class T> struct Matrix {
    T* at;
    integer unit, example;
    __device__ T& operator()(integer u, integer e) const { return at[u * unit + e * example]; }
};

template <class T> __device__ inline Matrix<T> matrix(T* at, integer unit, integer example) {
    Matrix<T> m = {at, unit, example};
    return m;
}

__device__ inline real scalar(const real* at, real otherwise) { return at ? *at : otherwise; }

// What a thread works on in an elementwise kernel: one unit, and every ``step``-th example from ``example`` on. A block
// covers ``width`` adjacent units, a power of two: neighbouring threads then access neighbouring numbers, since examples
// are contiguous.
struct Position {
    integer unit, example, step;
};

__device__ inline Position position(integer width) {
    integer rows = THREADS / width;
    Position p = {integer(blockIdx.x) * width + threadIdx.x % width, integer(blockIdx.y) * rows + threadIdx.x / width,
               integer(gridDim.y) * rows};
    return p;
}

// Whether this block is the last of ``count`` to call this; what the others wrote before is then visible to it. Which
// block is last may vary, but not what it adds up or in which order. ``counter`` is 0 before and after a launch.
__device__ inline bool last_block(unsigned* counter, unsigned count) {
    SHARED(unsigned, seen, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) seen[0] = atomicAdd(counter, 1u);
    __syncthreads();
    if (seen[0] != count - 1) return false;
    if (threadIdx.x == 0) *counter = 0;  // for the next launch
    __threadfence();
    return true;
}

__device__ inline integer blocks_of(integer terms) { return (terms + BLOCK - 1) / BLOCK; }

// -- sums over examples, unit by unit ---------------------------------------------------------------------------------

// What a thread works on in a sum over examples: one unit, one partial sum (``lane``) of one block of examples at a time.
// A block of threads covers ``width`` adjacent units, 8 at most, and sums ``groups`` blocks of examples at once.
struct SumPosition {
    integer unit;
    int width, lane, group, groups;
};

__device__ inline SumPosition sum_position(integer width) {
    int w = int(width), row = int(threadIdx.x) / w;
    SumPosition p = {integer(blockIdx.x) * w + threadIdx.x % w, w, row % PARTIALS, row / PARTIALS, THREADS / PARTIALS / w};
    return p;
}

// The partial sums of a block of examples, halved until one is left: in the thread of lane 0.
__device__ inline real halved(const SumPosition& p, real x) {
    SHARED(real, part, THREADS);
    __syncthreads();  // an earlier sum may still be read
    part[threadIdx.x] = x;
    __syncthreads();
    for (int half = PARTIALS / 2; half; half /= 2) {
        if (p.lane < half) part[threadIdx.x] += part[threadIdx.x + half * p.width];
        __syncthreads();
    }
    return part[threadIdx.x];
}

// partial[b n + unit] <- sum of term(e) over the examples of block b, for the blocks of examples that this block of threads sums.
template <class F>
__device__ inline void sum_blocks(const SumPosition& p, integer n, integer m, real* partial, const F& term) {
    const integer count = blocks_of(m), step = integer(gridDim.y) * p.groups;
    for (integer first = integer(blockIdx.y) * p.groups; first < count; first += step) {
        const integer b = first + p.group, end = (b + 1) * BLOCK < m ? (b + 1) * BLOCK : m;
        real x = 0;
        if (p.unit < n)
            for (integer e = b * BLOCK + p.lane; e < end; e += PARTIALS) x += term(e);
        x = halved(p, x);
        if (p.lane == 0 && p.unit < n && b < count) partial[b * n + p.unit] = x;
    }
    __syncthreads();
}

// Adds the sums of the blocks in a binary tree, neighbours first, and returns its unit's total to every thread.
// ``partial`` is overwritten.
__device__ inline real add_blocks(const SumPosition& p, integer n, integer m, real* partial) {
    volatile real* sums = partial + p.unit;  // written by other blocks
    const integer count = blocks_of(m), worker = threadIdx.x / p.width, workers = THREADS / p.width;
    for (integer stride = 1; stride < count; stride *= 2) {
        if (p.unit < n)
            for (integer b = worker * 2 * stride; b + stride < count; b += workers * 2 * stride)
                sums[b * n] = sums[b * n] + sums[(b + stride) * n];
        __syncthreads();
    }
    const real total = p.unit < n ? real(sums[0]) : real(0);
    __syncthreads();  // before the next sum's are written
    return total;
}

// The sum of term(e) over all examples, returned to every thread of the unit; for a grid with one row of blocks.
template <class F>
__device__ inline real sum_examples(const SumPosition& p, integer n, integer m, real* partial, const F& term) {
    sum_blocks(p, n, m, partial, term);
    return add_blocks(p, n, m, partial);
}

// Calls visit(e) for the examples that this thread has summed.
template <class F> __device__ inline void each_example(const SumPosition& p, integer n, integer m, const F& visit) {
    if (p.unit >= n) return;
    for (integer b = p.group; b * BLOCK < m; b += p.groups)
        for (integer e = b * BLOCK + p.lane; e < m && e < (b + 1) * BLOCK; e += PARTIALS) visit(e);
}

// db <- (+) scale * sum over examples of term(e). ``partial`` is (blocks of examples, n), ``counter`` (gridDim.x,).
template <class F>
__device__ inline void add_bias(integer width, integer n, integer m, real* partial, unsigned* counter, const real* scale,
                                real* db, integer accumulate, const F& term) {
    const SumPosition p = sum_position(width);
    sum_blocks(p, n, m, partial, term);
    if (gridDim.y > 1 && !last_block(counter + blockIdx.x, gridDim.y)) return;
    const real total = scalar(scale, real(1)) * add_blocks(p, n, m, partial);
    if (p.lane == 0 && p.group == 0 && p.unit < n) db[p.unit] = accumulate ? db[p.unit] + total : total;
}

// -- sums in float64 --------------------------------------------------------------------------------------------------

// The sum of term(i), i < n, by one block of threads, known to every thread. ``sums``: room for blocks_of(n) numbers.
template <class F> __device__ inline double wide_sum(integer n, double* sums, const F& term) {
    const integer count = blocks_of(n), lane = threadIdx.x % PARTIALS;
    for (integer b = threadIdx.x / PARTIALS; b < count; b += THREADS / PARTIALS) {
        double x = 0;
        for (integer i = b * BLOCK + lane; i < n && i < (b + 1) * BLOCK; i += PARTIALS) x += term(i);
        for (int far = PARTIALS / 2; far; far /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, far);
        if (lane == 0) sums[b] = x;
    }
    __syncthreads();
    for (integer stride = 1; stride < count; stride *= 2) {
        for (integer b = threadIdx.x * 2 * stride; b + stride < count; b += THREADS * 2 * stride) sums[b] += sums[b + stride];
        __syncthreads();
    }
    const double total = sums[0];
    __syncthreads();  // before the next sum's are written
    return total;
}
