// How work is laid over threads, and sums that give the same bits in every run: no float is ever added atomically.
// A block has THREADS threads. SHARED declares memory that a block shares; the tests' emulation has a definition of its own.

#ifndef SHARED
#define SHARED(type, name, count) __shared__ type name[count]
#endif

// A matrix of (units, examples) with any strides; null: there is none.
template <typename T>
struct Matrix {
    T* at;
    integer unit, example;
    __device__ T& operator()(integer u, integer e) const { return at[u * unit + e * example]; }
};

template <typename T>
__device__ inline Matrix<T> matrix(T* at, integer unit, integer example) {
    Matrix<T> m = {at, unit, example};
    return m;
}

// A thread's place: one unit, and every ``step``-th example from ``example`` on. ``width`` units, a power of two, lie
// side by side in a block: with examples contiguous, neighbouring threads touch neighbouring numbers.
struct Place {
    integer unit, example, step;
    int row, rows;
};

__device__ inline Place place(integer width) {
    Place p;
    p.rows = int(THREADS / width);
    p.row = int(threadIdx.x / width);
    p.unit = blockIdx.x * width + threadIdx.x % width;
    p.example = integer(blockIdx.y) * p.rows + p.row;
    p.step = integer(gridDim.y) * p.rows;
    return p;
}

// Whether this block is the last of ``count`` that come here; what the others wrote before is then visible. An integer
// counter: which block is last may vary, what it adds up and in which order does not.
__device__ inline bool last_block(unsigned* ticket, unsigned count) {
    SHARED(unsigned, seen, 1);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) seen[0] = atomicAdd(ticket, 1u);
    __syncthreads();
    if (seen[0] != count - 1) return false;
    if (threadIdx.x == 0) *ticket = 0;  // for the next launch
    __threadfence();
    return true;
}

// The sum over a block, known to every thread.
__device__ inline real block_sum(real x) {
    for (int far = 16; far; far /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, far);
    SHARED(real, warps, THREADS / 32);
    __syncthreads();  // an earlier sum may still be read
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    real total = 0;
    for (int w = 0; w < THREADS / 32; ++w) total += warps[w];
    return total;
}

// N sums over a one-dimensional grid, through ``partial`` (N, gridDim.x): true in the one block that gets them.
template <int N>
__device__ inline bool grid_sums(const real (&x)[N], real* partial, unsigned* ticket, real (&totals)[N]) {
    for (int k = 0; k < N; ++k) {
        real sum = block_sum(x[k]);
        if (threadIdx.x == 0) partial[k * gridDim.x + blockIdx.x] = sum;
    }
    if (!last_block(ticket, gridDim.x)) return false;
    for (int k = 0; k < N; ++k) {
        real sum = 0;
        for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS)
            sum += ((volatile real*)partial)[k * gridDim.x + i];
        totals[k] = block_sum(sum);
    }
    return true;
}

// One sum.
__device__ inline bool grid_sum(real x, real* partial, unsigned* ticket, real& total) {
    real sums[1] = {x}, totals[1];
    bool last = grid_sums(sums, partial, ticket, totals);
    if (last) total = totals[0];
    return last;
}

// The sum over the block's threads of one unit, in the thread of row 0.
__device__ inline real unit_sum(const Place& p, integer width, real x) {
    SHARED(real, lane, THREADS);
    __syncthreads();  // an earlier sum may still be read
    lane[threadIdx.x] = x;
    __syncthreads();
    for (int half = p.rows / 2; half; half /= 2) {
        if (p.row < half) lane[threadIdx.x] += lane[threadIdx.x + half * width];
        __syncthreads();
    }
    return lane[threadIdx.x];
}

// db <- (+) scale * sum over examples: each thread brings the sum of its own examples; ``partial`` is (gridDim.y, n),
// ``ticket`` (gridDim.x,).
__device__ inline void write_bias(const Place& p, integer width, integer n, real x, real* partial, unsigned* ticket,
                                  const real* scale, real* db, integer accumulate) {
    real sum = unit_sum(p, width, x);
    if (gridDim.y > 1) {
        if (p.row == 0 && p.unit < n) partial[blockIdx.y * n + p.unit] = sum;
        if (!last_block(ticket + blockIdx.x, gridDim.y)) return;
        sum = 0;
        if (p.unit < n)
            for (unsigned c = p.row; c < gridDim.y; c += p.rows) sum += ((volatile real*)partial)[c * n + p.unit];
        sum = unit_sum(p, width, sum);
    }
    if (p.row == 0 && p.unit < n) {
        if (scale) sum = *scale * sum;
        db[p.unit] = accumulate ? db[p.unit] + sum : sum;
    }
}
