// The last layer: dZ[L] and the cost from the logits, in one sweep.

#include "real.h"
#include "activations.h"
#include "losses.h"
#include "blocks.h"

// An example's outputs are shared by a group of lanes of one warp, a power of two; every lane takes part.
__device__ inline real group_sum(real x, integer group) {
    for (int far = int(group) / 2; far; far /= 2) x += __shfl_xor_sync(0xFFFFFFFFu, x, far);
    return x;
}

__device__ inline real group_maximum(real x, integer group) {
    for (int far = int(group) / 2; far; far /= 2) x = maximum(x, __shfl_xor_sync(0xFFFFFFFFu, x, far));
    return x;
}

// Columns of numbers, or class labels (1, m).
struct Targets {
    const void* at;
    integer unit, example, labels;
    __device__ real operator()(integer u, integer e) const {
        if (labels) return ((const integer*)at)[e * example] == u ? real(1) : real(0);
        return ((const real*)at)[u * unit + e * example];
    }
};

// What dZ of one example is multiplied with: its weight, where 0 silences whatever there is, and the early 1/D.
struct Weighing {
    real weight, early;
    integer weighted, divides;
    __device__ real operator()(real x) const {
        if (weighted) x = weight == real(0) ? real(0) : weight * x;
        return divides ? x * early : x;
    }
};

// One example of a loss whose outputs stand alone; L in every lane of the group.
__device__ inline real elementwise(integer code, real p, real rest, real share, const Matrix<const real>& Z, const Targets& Y,
                                   const Matrix<real>& dZ, const Weighing& weigh, integer n, integer e, integer lane,
                                   integer group) {
    real loss = 0;
    for (integer u = lane; u < n; u += group) {
        real z = Z(u, e), y = code == BINARY_CROSS_ENTROPY ? smoothed(rest, p, Y(u, e)) : Y(u, e);
        loss += loss_term(code, p, z, y);
        dZ(u, e) = weigh(loss_slope(code, p, z, y) * share);
    }
    return group_sum(loss, group) * share;
}

// One example of categorical cross-entropy; L in every lane of the group.
__device__ inline real categorical(real rest, real share, const Matrix<const real>& Z, const Targets& Y,
                                   const Matrix<real>& dZ, const Weighing& weigh, integer n, integer e, integer lane,
                                   integer group) {
    real top = Z(lane < n ? lane : 0, e);
    for (integer u = lane + group; u < n; u += group) top = maximum(top, Z(u, e));
    top = group_maximum(top, group);
    real sum = 0, targets = 0;
    for (integer u = lane; u < n; u += group) {
        sum += exp(Z(u, e) - top);
        targets += smoothed(rest, share, Y(u, e));
    }
    sum = group_sum(sum, group);
    targets = group_sum(targets, group);
    real loss = 0, log_sum = log(sum);
    for (integer u = lane; u < n; u += group) {
        real shifted = Z(u, e) - top, target = smoothed(rest, share, Y(u, e));
        loss += cross_entropy_term(target, log_sum, shifted);
        dZ(u, e) = weigh(cross_entropy_slope(target, targets, sum, shifted));
    }
    return group_sum(loss, group);
}

// dZ <- w dL/dZ (1/D if early);  value += (1/D) sum of w L. ``share``: 1/n of a loss averaged over outputs, s/n of a
// smoothed one. ``partial`` is (gridDim.x,).
extern "C" __global__ void output_delta(const real* logits, integer logits_unit, integer logits_example,
                                        const void* targets, integer targets_unit, integer targets_example,
                                        integer labels, const real* weights, integer weights_example,
                                        const real* inverse, integer early, integer code, double parameter, double rest,
                                        double share, real* delta, integer delta_unit, integer delta_example, integer n,
                                        integer m, integer group, real* partial, unsigned* ticket, real* value) {
    Matrix<const real> Z = matrix(logits, logits_unit, logits_example);
    Matrix<real> dZ = matrix(delta, delta_unit, delta_example);
    Targets Y = {targets, targets_unit, targets_example, labels};
    integer lane = threadIdx.x % group, examples = THREADS / group;
    real cost = 0;
    for (integer start = blockIdx.x * examples; start < m; start += gridDim.x * examples) {
        integer e = start + threadIdx.x / group;
        bool there = e < m;  // lanes beyond the last example go along and leave nothing
        Weighing weigh = {there && weights ? weights[e * weights_example] : real(1), *inverse, weights != nullptr, early};
        integer outputs = there ? n : 0;
        real loss;
        if (code == CATEGORICAL_CROSS_ENTROPY)
            loss = categorical(real(rest), real(share), Z, Y, dZ, weigh, outputs, there ? e : 0, lane, group);
        else
            loss = elementwise(code, real(parameter), real(rest), real(share), Z, Y, dZ, weigh, outputs, there ? e : 0, lane, group);
        if (there && lane == 0) cost += weigh.weighted && weigh.weight == real(0) ? real(0) : weigh.weight * loss;
    }
    real total;
    if (grid_sum(cost, partial, ticket, total) && threadIdx.x == 0) *value += *inverse * total;
}
