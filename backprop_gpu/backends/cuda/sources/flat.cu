// Over the flat vector: penalty, gradient norm, optimizer.

#include "real.h"
#include "optimizers.h"
#include "blocks.h"

// grad += l2 theta + l1 sign(theta);  value += l2/2 |theta|^2 + l1 |theta|_1. A strength that is null is left out.
extern "C" __global__ void penalty(const real* theta, real* grad, const real* l1, const real* l2, integer n,
                                   real* partial, unsigned* ticket, real* value) {
    real sum = 0;
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS) {
        real x = theta[i], g = grad[i];
        if (l2) {
            g += *l2 * x;
            sum += real(0.5) * *l2 * (x * x);
        }
        if (l1) {
            g += *l1 * sign(x);
            sum += *l1 * fabs(x);
        }
        grad[i] = g;
    }
    real total;
    if (grid_sum(sum, partial, ticket, total) && threadIdx.x == 0) *value += total;
}

// norm <- |grad|_2;  factor <- min(1, limit / norm). Numbers whose squares might overflow or vanish are added up by
// themselves, times a power of two (Blue 1978; maths.regularization.norm_scale).
extern "C" __global__ void global_norm(const real* grad, integer n, double limit, real* partial, unsigned* ticket,
                                       real* norm, real* factor) {
    const real down = power_of_two(-5 * EXPONENTS / 8), up = power_of_two(3 * EXPONENTS / 4);
    const real large = power_of_two(3 * EXPONENTS / 8), small = power_of_two(-3 * EXPONENTS / 8);
    real sums[3] = {0, 0, 0}, totals[3];  // of large, of usual and of small numbers
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS) {
        real x = fabs(grad[i]);
        if (x > large) {
            sums[0] += (down * x) * (down * x);
        } else if (x < small) {
            sums[2] += (up * x) * (up * x);
        } else {
            sums[1] += x * x;
        }
    }
    if (!grid_sums(sums, partial, ticket, totals) || threadIdx.x != 0) return;
    real total = totals[2], scale = up;
    if (totals[0] != real(0)) {  // beside which small numbers are nothing
        total = totals[0] + totals[1] * down * down;
        scale = down;
    } else if (totals[1] != real(0)) {
        total = totals[1] + totals[2] / up / up;
        scale = real(1);
    }
    real root = sqrt(total), size = root / scale;
    *norm = size;
    *factor = size > real(limit) ? real(limit) / root * scale : real(1);
}

// theta, slots <- optimizer(theta, factor * grad, slots; scalars). Slots that the rule has not, and the factor, are null.
extern "C" __global__ void update(integer code, real* theta, const real* grad, real* first, real* second, real* third,
                                  const real* scalars, integer correction, integer shrink, double b1, double r1,
                                  double b2, double r2, double epsilon, const real* factor, integer n) {
    Rule rule = {scalars[0], correction ? scalars[1] : real(1), shrink ? scalars[shrink] : real(1),
                 real(b1),   real(r1), real(b2), real(r2), real(epsilon)};
    real f = factor ? *factor : real(1);
    for (integer i = blockIdx.x * integer(THREADS) + threadIdx.x; i < n; i += integer(gridDim.x) * THREADS) {
        Entry e = {theta[i], first ? first[i] : real(0), second ? second[i] : real(0), third ? third[i] : real(0)};
        descend(code, rule, e, f * grad[i]);
        theta[i] = e.theta;
        if (first) first[i] = e.first;
        if (second) second[i] = e.second;
        if (third) third[i] = e.third;
    }
}
