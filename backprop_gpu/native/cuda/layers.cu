// What follows a layer's matrix products: bias, activation and dropout; derivative and bias gradient.
#include "../formulas/activations.h"
#include "../formulas/formula_ids.h"
#include "../formulas/philox.h"
#include "blocks.h"

#define FORWARD(name, G) \
    case name##_id: return activations::G::forward(z, p);
#define VJP(name, G) \
    case name##_id: return activations::G::vjp(dA, activations::G::DERIVATIVE_FROM_OUTPUT ? a : z, p);

__device__ inline real activate(integer id, real p, real z) {
    switch (id) { ACTIVATIONS_FROM_OUTPUT(FORWARD) ACTIVATIONS_FROM_INPUT(FORWARD) }
    return z;
}

__device__ inline real activate_vjp(integer id, real p, real dA, real z, real a) {
    switch (id) { ACTIVATIONS_FROM_OUTPUT(VJP) ACTIVATIONS_FROM_INPUT(VJP) }
    return dA;
}

// A <- g(P + b), P the product W A_prev (the same buffer as A if nothing is saved); P <- z if ``saves_z``. b may be null.
extern "C" __global__ void bias_activation(real* product, integer product_unit, integer product_example, integer saves_z,
                                           const real* b, integer id, double parameter, real* out, integer out_unit,
                                           integer out_example, integer n, integer m, integer width) {
    Matrix<real> P = matrix(product, product_unit, product_example), A = matrix(out, out_unit, out_example);
    Position p = position(width);
    if (p.unit >= n) return;
    real bias = b ? b[p.unit] : real(0);
    for (integer e = p.example; e < m; e += p.step) {
        real z = P(p.unit, e) + bias;
        if (saves_z) P(p.unit, e) = z;
        A(p.unit, e) = activate(id, real(parameter), z);
    }
}

// The same with dropout, four units a thread, since Philox gives four words: G = g(P + b), A = G * mask / (1 - rate).
// Unit u of an example survives where word u % 4 of (u / 4, the example's position in the batch, layer, step) is below
// ``threshold`` = (1 - rate) 2^32.
extern "C" __global__ void bias_activation_dropout(real* product, integer product_unit, integer product_example,
                                                   integer saves_z, const real* b, integer id, double parameter,
                                                   real* before, integer before_unit, integer before_example, real* out,
                                                   integer out_unit, integer out_example, unsigned char* mask,
                                                   integer mask_unit, integer mask_example, integer n, integer m,
                                                   integer width, integer k0, integer k1, integer layer,
                                                   const integer* step, const integer* first, integer threshold,
                                                   double scale) {
    Matrix<real> P = matrix(product, product_unit, product_example), A = matrix(out, out_unit, out_example);
    Matrix<real> G = matrix(before, before_unit, before_example);
    Matrix<unsigned char> survives = matrix(mask, mask_unit, mask_example);
    Position p = position(width);  // of four units
    for (integer e = p.example; e < m; e += p.step) {
        philox::Words w = philox::words(philox::Word(p.unit), philox::Word(*first + e), philox::Word(layer), philox::Word(*step),
                                        philox::Word(k0), philox::Word(k1));
        const philox::Word words[4] = {w.w0, w.w1, w.w2, w.w3};
        for (int i = 0; i < 4; ++i) {
            integer u = 4 * p.unit + i;
            if (u >= n) break;
            real z = P(u, e) + (b ? b[u] : real(0));
            if (saves_z) P(u, e) = z;
            real g = activate(id, real(parameter), z);
            bool alive = integer(words[i]) < threshold;
            G(u, e) = g;
            survives(u, e) = alive;
            A(u, e) = alive ? g * real(scale) : real(0);
        }
    }
}

// dZ <- dA * drop * g', in place over dA = W^T dZ_next;  db <- (+) scale * sum over examples. z and mask may be null. A
// dropped unit gives 0 for any dA, infinity too, and so does a relu unit whose output is 0.
extern "C" __global__ void activation_vjp(real* dA, integer dA_unit, integer dA_example, const real* saved_z,
                                          integer z_unit, integer z_example, const real* saved_a, integer a_unit,
                                          integer a_example, const unsigned char* saved_mask, integer mask_unit,
                                          integer mask_example, double dropout_scale, integer id, double parameter,
                                          integer n, integer m, integer width, real* partial, unsigned* counter,
                                          const real* scale, real* db, integer accumulate) {
    Matrix<real> D = matrix(dA, dA_unit, dA_example);
    Matrix<const real> Z = matrix(saved_z, z_unit, z_example), A = matrix(saved_a, a_unit, a_example);
    Matrix<const unsigned char> mask = matrix(saved_mask, mask_unit, mask_example);
    const integer u = sum_position(width).unit;
    add_bias(width, n, m, partial, counter, scale, db, accumulate, [=](integer e) {
        const real d = D(u, e), z = saved_z ? Z(u, e) : real(0), a = A(u, e);
        real dZ;
        if (saved_mask) {
            const real slope = activate_vjp(id, real(parameter), real(1), z, a) * real(dropout_scale);
            const bool alive = mask(u, e) && (id != relu_id || slope != real(0));
            dZ = alive ? d * slope : real(0);
        } else {
            dZ = activate_vjp(id, real(parameter), d, z, a);
        }
        D(u, e) = dZ;
        return dZ;
    });
}

// db <- (+) scale * sum over examples of dZ.
extern "C" __global__ void bias_gradient(const real* dZ, integer dZ_unit, integer dZ_example, integer n, integer m,
                                         integer width, real* partial, unsigned* counter, const real* scale, real* db,
                                         integer accumulate) {
    Matrix<const real> D = matrix(dZ, dZ_unit, dZ_example);
    const integer u = sum_position(width).unit;
    add_bias(width, n, m, partial, counter, scale, db, accumulate, [=](integer e) { return D(u, e); });
}
