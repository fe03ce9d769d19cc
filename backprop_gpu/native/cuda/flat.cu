// Operations on the flat vector of all parameters: penalty, gradient norm, optimizer, moving average. Sums over parameters are made
// in blocks of PARAMETERS numbers, whose sums the last block of threads adds.
#include "../formulas/formula_ids.h"
#include "../formulas/optimizers.h"
#include "blocks.h"

constexpr integer PARAMETERS = 4096;  // of a block, as in cpu/flat.h

// The part of a vector of n numbers that is block b: where it begins, and how long it is.
struct Span {
    integer start, size;
};

__device__ inline Span span(integer b, integer n) {
    const integer left = n - b * PARAMETERS;
    Span s = {b * PARAMETERS, left < PARAMETERS ? left : PARAMETERS};
    return s;
}

__device__ inline integer parameter_blocks(integer n) { return (n + PARAMETERS - 1) / PARAMETERS; }

// grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1. A strength that is null is left out: 0 times
// infinity would be NaN. ``sums``: a number for each block, then room for their sum.
extern "C" __global__ void penalty(const real* theta, real* grad, const real* l1, const real* l2, integer n,
                                   double* sums, unsigned* counter, real* value) {
    SHARED(double, room, PARAMETERS / BLOCK);
    const integer count = parameter_blocks(n);
    for (integer b = blockIdx.x; b < count; b += gridDim.x) {
        const Span s = span(b, n);
        const real* x = theta + s.start;
        real* g = grad + s.start;
        double total = 0;
        if (l2) {
            const real strength = *l2;
            for (integer i = threadIdx.x; i < s.size; i += THREADS) g[i] += strength * x[i];
            total += 0.5 * double(strength) * wide_sum(s.size, room, [=](integer i) { return double(x[i]) * double(x[i]); });
        }
        if (l1) {
            const real strength = *l1;
            for (integer i = threadIdx.x; i < s.size; i += THREADS) g[i] += strength * sign(x[i]);
            total += double(strength) * wide_sum(s.size, room, [=](integer i) { return double(magnitude(x[i])); });
        }
        if (threadIdx.x == 0) sums[b] = total;
    }
    if (!last_block(counter, gridDim.x)) return;
    const volatile double* each = sums;
    const double total = wide_sum(count, sums + count, [=](integer b) { return each[b]; });
    if (threadIdx.x == 0) *value += real(total);
}

// The largest of all threads' numbers, none of which is NaN.
__device__ inline double block_maximum(double x) {
    SHARED(double, warps, THREADS / PARTIALS);
    for (int far = PARTIALS / 2; far; far /= 2) x = maximum(x, __shfl_xor_sync(0xFFFFFFFFu, x, far));
    __syncthreads();  // an earlier maximum may still be read
    if (threadIdx.x % PARTIALS == 0) warps[threadIdx.x / PARTIALS] = x;
    __syncthreads();
    for (int w = 0; w < THREADS / PARTIALS; ++w) x = maximum(x, warps[w]);
    return x;
}

// A power of two that scales a block so that its squares neither overflow nor vanish: float64 alone needs one, since the
// squares of float32 are summed in float64.
__device__ inline double block_scale(const real* g, integer n) {
    if (sizeof(real) == 4) return 1.0;
    double largest = 0;
    for (integer i = threadIdx.x; i < n; i += THREADS) largest = magnitude(g[i]) > largest ? double(magnitude(g[i])) : largest;
    // The power of two below the largest, clamped so that its inverse is a normal number too.
    const double scale = from_bits((long long)(bits(block_maximum(largest)) & 0x7FF0000000000000ll));
    return scale < 0x1p-1000 ? 0x1p-1000 : scale > 0x1p1000 ? 0x1p1000 : scale;
}

// norm <- |grad|_2;  factor <- min(1, limit / norm). |grad|^2 of each block is sum * scale^2. ``sums``, ``scales``: a number
// for each block; after ``sums`` there is room for their sum.
extern "C" __global__ void global_norm(const real* grad, integer n, double limit, double* sums, double* scales,
                                       unsigned* counter, real* norm, real* factor) {
    SHARED(double, room, PARAMETERS / BLOCK);
    const integer count = parameter_blocks(n);
    for (integer b = blockIdx.x; b < count; b += gridDim.x) {
        const Span s = span(b, n);
        const real* g = grad + s.start;
        const double scale = block_scale(g, s.size), inverse = 1.0 / scale;
        const double sum = wide_sum(s.size, room, [=](integer i) { return (double(g[i]) * inverse) * (double(g[i]) * inverse); });
        if (threadIdx.x == 0) sums[b] = sum, scales[b] = scale;
    }
    if (!last_block(counter, gridDim.x)) return;
    const volatile double *each = sums, *scale = scales;  // written by other blocks
    double largest = 0;
    for (integer b = threadIdx.x; b < count; b += THREADS) largest = scale[b] > largest ? scale[b] : largest;
    largest = block_maximum(largest);
    const double inverse = 1.0 / largest;
    const double total = wide_sum(count, sums + count, [=](integer b) {
        const double s = scale[b] * inverse;
        return each[b] * s * s;
    });
    if (threadIdx.x != 0) return;
    const double root = sqrt(total);
    const real size = real(largest * root);
    *norm = size;
    *factor = optimizers::clip_factor(size, real(limit), root, largest);
}

template <class Rule>
__device__ inline void update_all(real* theta, const real* grad, real* x, real* y, real* z, const real* scalars,
                                  const real (&c)[5], const real* factor, integer n) {
    const real f = scalar(factor, real(1));
    real s[3] = {};
    for (int i = 0; i < Rule::SCALARS; ++i) s[i] = scalars[i];
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS) {
        real none = 0;
        Rule::step(theta[i], f * grad[i], Rule::SLOTS > 0 ? x[i] : none, Rule::SLOTS > 1 ? y[i] : none,
                   Rule::SLOTS > 2 ? z[i] : none, s, c);
    }
}

#define UPDATE(name, Rule) \
    case name##_id: update_all<optimizers::Rule>(theta, grad, first, second, third, scalars, c, factor, n); break;

// theta, state <- optimizer(theta, factor * grad, state; scalars). Vectors that the rule has not, and the factor, are null.
extern "C" __global__ void update(integer id, real* theta, const real* grad, real* first, real* second, real* third,
                                  const real* scalars, double c0, double c1, double c2, double c3, double c4,
                                  const real* factor, integer n) {
    const real c[5] = {real(c0), real(c1), real(c2), real(c3), real(c4)};
    switch (id) { OPTIMIZERS(UPDATE) }
}

// average <- average + share (theta - average).
extern "C" __global__ void average(const real* theta, real* mean, const real* share, integer n) {
    const real s = *share;
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS)
        mean[i] += s * (theta[i] - mean[i]);
}
