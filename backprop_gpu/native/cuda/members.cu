// The weights of an ensemble's members (maths/batch_ensemble.py): columns are the units of blocks.h, rows its examples, since
// neighbouring numbers of W are of neighbouring columns.
#include "../formulas/batch_ensemble.h"
#include "blocks.h"

// out <- diag(s) W diag(r); s may be null.
extern "C" __global__ void member_weights(const real* W, const real* r, const real* s, real* out, integer n, integer k,
                                          integer width) {
    const Position p = position(width);
    if (p.unit >= k) return;
    for (integer i = p.example; i < n; i += p.step)
        out[i * k + p.unit] = batch_ensemble::scaled(W[i * k + p.unit], r[p.unit], s ? s[i] : real(1));
}

// dW <- (+) diag(s) G diag(r);  dr <- (+) sum over rows of s W G. One row of blocks: each sums its columns alone.
extern "C" __global__ void member_weights_vjp(const real* G, const real* W, const real* r, const real* s, real* dW, real* dr,
                                              integer accumulate, integer accumulate_own, integer n, integer k,
                                              integer width, real* partial) {
    const SumPosition p = sum_position(width);
    const integer j = p.unit;
    const real total = sum_examples(p, k, n, partial, [=](integer i) {
        return batch_ensemble::scaled(G[i * k + j], W[i * k + j], s ? s[i] : real(1));
    });
    each_example(p, k, n, [=](integer i) {
        const real x = batch_ensemble::scaled(G[i * k + j], r[j], s ? s[i] : real(1));
        dW[i * k + j] = accumulate ? dW[i * k + j] + x : x;
    });
    if (p.lane || p.group || j >= k) return;
    dr[j] = accumulate_own ? dr[j] + total : total;
}

// ds <- (+) sum over columns of W G r: here rows are the units.
extern "C" __global__ void member_outputs_vjp(const real* G, const real* W, const real* r, real* ds, integer accumulate,
                                              integer n, integer k, integer width, real* partial) {
    const SumPosition p = sum_position(width);
    const integer i = p.unit;
    const real total = sum_examples(p, n, k, partial, [=](integer j) {
        return batch_ensemble::scaled(G[i * k + j], W[i * k + j], r[j]);
    });
    if (p.lane || p.group || i >= n) return;
    ds[i] = accumulate ? ds[i] + total : total;
}
