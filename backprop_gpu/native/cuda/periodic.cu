// Periodic embeddings of the first columns of X (maths/periodic.py): a thread has one wave or one output of a column.
#include "../formulas/periodic.h"
#include "blocks.h"

// P <- cos z, Q <- -sin z; Q may be null. A unit is one of the n waves, h for each column.
extern "C" __global__ void periodic_waves(const real* in, integer in_unit, integer in_example, const real* w, const real* b,
                                          real* cosine, integer cosine_unit, integer cosine_example, real* slope,
                                          integer slope_unit, integer slope_example, integer h, integer n, integer m,
                                          integer width) {
    Matrix<const real> X = matrix(in, in_unit, in_example);
    Matrix<real> P = matrix(cosine, cosine_unit, cosine_example), Q = matrix(slope, slope_unit, slope_example);
    const Position p = position(width);
    const integer u = p.unit;
    if (u >= n) return;
    for (integer e = p.example; e < m; e += p.step) {
        real q;
        periodic::wave(X(u / h, e), w[u], b[u], P(u, e), q);
        if (slope) Q(u, e) = q;
    }
}

// E <- V P + c. A unit is one of the n outputs, o for each column.
extern "C" __global__ void periodic_outputs(const real* cosine, integer cosine_unit, integer cosine_example, const real* V,
                                            const real* c, real* out, integer out_unit, integer out_example, integer h,
                                            integer o, integer n, integer m, integer width) {
    Matrix<const real> P = matrix(cosine, cosine_unit, cosine_example);
    Matrix<real> E = matrix(out, out_unit, out_example);
    const Position p = position(width);
    const integer u = p.unit;
    if (u >= n) return;
    for (integer e = p.example; e < m; e += p.step) {
        real x = 0;
        for (integer i = 0; i < h; ++i) x = fma(V[u * h + i], P(u / o * h + i, e), x);
        E(u, e) = x + c[u];
    }
}

__device__ inline void put(real* at, real term, integer accumulate) { *at = accumulate ? *at + term : term; }

// dV <- (+) scale dE P^T. A unit is one of the n entries of V; one row of blocks.
extern "C" __global__ void periodic_vjp_mixing(const real* derivative, integer derivative_unit, integer derivative_example,
                                               const real* cosine, integer cosine_unit, integer cosine_example,
                                               const real* scale, real* dV, integer accumulate, integer h, integer o,
                                               integer n, integer m, integer width, real* partial) {
    Matrix<const real> dE = matrix(derivative, derivative_unit, derivative_example);
    Matrix<const real> P = matrix(cosine, cosine_unit, cosine_example);
    const SumPosition p = sum_position(width);
    const integer u = p.unit, output = u / h, wave = output / o * h + u % h;
    const real total = sum_examples(p, n, m, partial, [=](integer e) { return dE(output, e) * P(wave, e); });
    if (p.lane || p.group || u >= n) return;
    put(dV + u, scalar(scale, real(1)) * total, accumulate);
}

// With dz = (V^T dE) Q:  db <- (+) scale sum dz;  dw <- (+) scale 2 pi sum dz x. A unit is a wave; one row of blocks.
extern "C" __global__ void periodic_vjp_waves(const real* derivative, integer derivative_unit, integer derivative_example,
                                              const real* in, integer in_unit, integer in_example, const real* slope,
                                              integer slope_unit, integer slope_example, const real* V, const real* scale,
                                              real* dw, real* db, integer accumulate, integer h, integer o, integer n,
                                              integer m, integer width, real* partial) {
    Matrix<const real> dE = matrix(derivative, derivative_unit, derivative_example), X = matrix(in, in_unit, in_example);
    Matrix<const real> Q = matrix(slope, slope_unit, slope_example);
    const SumPosition p = sum_position(width);
    const integer u = p.unit, column = u / h;
    const auto dz = [=](integer e) {
        real d = 0;
        for (integer k = 0; k < o; ++k) d = fma(V[(column * o + k) * h + u % h], dE(column * o + k, e), d);
        return d * Q(u, e);
    };
    const real total = sum_examples(p, n, m, partial, dz);
    const real along = sum_examples(p, n, m, partial, [=](integer e) { return dz(e) * X(column, e); });
    if (p.lane || p.group || u >= n) return;
    put(db + u, scalar(scale, real(1)) * total, accumulate);
    put(dw + u, scalar(scale, real(1)) * (real(periodic::TWO_PI) * along), accumulate);
}
