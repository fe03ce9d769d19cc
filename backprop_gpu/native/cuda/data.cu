// Gathering a batch, advancing to the next one without the host, and rounding to bfloat16 for products.
#include "blocks.h"

// out[i] <- source[order[stride k + i]], k = counters[0]: rows of ``words`` 32-bit words.
extern "C" __global__ void gather(const unsigned* source, const integer* order, const integer* counters, integer stride,
                                  unsigned* out, integer rows, integer words, integer width) {
    Position p = position(width);
    if (p.unit >= words) return;
    const integer* batch = order + stride * counters[0];
    for (integer row = p.example; row < rows; row += p.step)
        out[row * words + p.unit] = source[batch[row] * words + p.unit];
}

// values[k] <- value if k = counters[0] is one of them;  counters += 1;  value <- 0;  step_scalars <- table[counters[0]].
// One block.
extern "C" __global__ void advance(integer* counters, const real* table, integer numbers, real* values,
                                   integer n_values, real* step_scalars, real* value) {
    integer k = counters[0];
    __syncthreads();  // all have read it
    if (threadIdx.x == 0) {
        if (k >= 0 && k < n_values) values[k] = *value;
        counters[0] = k + 1;
        counters[1] += 1;
        *value = 0;
    }
    for (integer i = threadIdx.x; i < numbers; i += THREADS) step_scalars[i] = table[(k + 1) * numbers + i];
}

// The bits of the nearest bfloat16, ties to even: the upper half of a float32's. NaN stays one.
__device__ inline unsigned short bfloat16(float x) {
    const unsigned all = unsigned(bits(x));
    if (x != x) return (unsigned short)(all >> 16 | 0x40u);
    return (unsigned short)((all + 0x7FFFu + (all >> 16 & 1u)) >> 16);
}

// out <- x, each number rounded to bfloat16.
extern "C" __global__ void round_to_bfloat16(const real* x, unsigned short* out, integer n) {
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS)
        out[i] = bfloat16(float(x[i]));
}
