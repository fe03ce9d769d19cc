// Parametric activations of a layer (maths/parametric.py).
#include "../formulas/formula_ids.h"
#include "../formulas/parametric.h"
#include "blocks.h"

#define PARAMETRIC(name, G) \
    case name##_id: return parametric::forward<activations::G>(z, alpha, p, D, S);

__device__ inline real mixed(integer id, real p, real z, real alpha, real& D, real& S) {
    switch (id) { ACTIVATIONS_FROM_OUTPUT(PARAMETRIC) ACTIVATIONS_FROM_INPUT(PARAMETRIC) }
    return z;
}

// A <- Z + alpha D, D <- g(Z) - Z, S <- g'(Z); D and S may be null.
extern "C" __global__ void parametric_forward(const real* in, integer in_unit, integer in_example, const real* alpha,
                                              integer id, double parameter, real* out, integer out_unit,
                                              integer out_example, real* difference, integer difference_unit,
                                              integer difference_example, real* slope, integer slope_unit,
                                              integer slope_example, integer n, integer m, integer width) {
    Matrix<const real> Z = matrix(in, in_unit, in_example);
    Matrix<real> A = matrix(out, out_unit, out_example), D = matrix(difference, difference_unit, difference_example);
    Matrix<real> S = matrix(slope, slope_unit, slope_example);
    const Position p = position(width);
    const integer u = p.unit;
    if (u >= n) return;
    for (integer e = p.example; e < m; e += p.step) {
        real d = 0, s = 0;
        A(u, e) = mixed(id, real(parameter), Z(u, e), alpha[u], d, s);
        if (difference) D(u, e) = d, S(u, e) = s;
    }
}

// dZ <- dA (1 + alpha (S - 1));  dalpha <- (+) scale sum dA D;  db <- (+) scale sum dZ. One row of blocks.
extern "C" __global__ void parametric_vjp(const real* derivative, integer derivative_unit, integer derivative_example,
                                          const real* difference, integer difference_unit, integer difference_example,
                                          const real* slope, integer slope_unit, integer slope_example, const real* alpha,
                                          const real* scale, real* out, integer out_unit, integer out_example, real* dalpha,
                                          real* db, integer accumulate, integer accumulate_b, integer n, integer m,
                                          integer width, real* partial) {
    Matrix<const real> dA = matrix(derivative, derivative_unit, derivative_example);
    Matrix<const real> D = matrix(difference, difference_unit, difference_example), S = matrix(slope, slope_unit, slope_example);
    Matrix<real> dZ = matrix(out, out_unit, out_example);
    const SumPosition p = sum_position(width);
    const integer u = p.unit;
    const real along = sum_examples(p, n, m, partial, [=](integer e) { return parametric::vjp_alpha(dA(u, e), D(u, e)); });
    const real total = sum_examples(p, n, m, partial, [=](integer e) {
        const real x = parametric::vjp(dA(u, e), S(u, e), alpha[u]);
        dZ(u, e) = x;
        return x;
    });
    if (p.lane || p.group || u >= n) return;
    const real s = scalar(scale, real(1)), term = s * along, sum = s * total;
    dalpha[u] = accumulate ? dalpha[u] + term : term;
    db[u] = accumulate_b ? db[u] + sum : sum;
}
