// What is computed of the inputs before the first dense layer (network/input_stage.py).
#include "../formulas/scaling.h"
#include "blocks.h"

// H <- s X.
extern "C" __global__ void scaling_forward(const real* in, integer in_unit, integer in_example, const real* s, real* out,
                                           integer out_unit, integer out_example, integer n, integer m, integer width) {
    Matrix<const real> X = matrix(in, in_unit, in_example);
    Matrix<real> H = matrix(out, out_unit, out_example);
    const Position p = position(width);
    if (p.unit >= n) return;
    for (integer e = p.example; e < m; e += p.step) H(p.unit, e) = scaling::forward(X(p.unit, e), s[p.unit]);
}

// dX <- s dH;  ds <- (+) scale * sum over examples of dH X. dX may be null. One row of blocks.
extern "C" __global__ void scaling_vjp(const real* derivative, integer derivative_unit, integer derivative_example,
                                       const real* in, integer in_unit, integer in_example, const real* s,
                                       const real* scale, real* out, integer out_unit, integer out_example, real* ds,
                                       integer accumulate, integer n, integer m, integer width, real* partial) {
    Matrix<const real> dH = matrix(derivative, derivative_unit, derivative_example), X = matrix(in, in_unit, in_example);
    Matrix<real> dX = matrix(out, out_unit, out_example);
    const SumPosition p = sum_position(width);
    const integer u = p.unit;
    const real total = sum_examples(p, n, m, partial, [=](integer e) { return scaling::vjp_scale(dH(u, e), X(u, e)); });
    if (out) each_example(p, n, m, [=](integer e) { dX(u, e) = scaling::vjp(dH(u, e), s[u]); });
    if (p.lane || p.group || u >= n) return;
    const real term = scalar(scale, real(1)) * total;
    ds[u] = accumulate ? ds[u] + term : term;
}
