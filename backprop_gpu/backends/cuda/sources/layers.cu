// What follows a layer's matrix products: bias, activation and dropout; derivative and bias gradient.

#include "real.h"
#include "philox.h"
#include "activations.h"
#include "blocks.h"

// A <- g(P + b), P the product W A_prev, which is A itself where nothing is kept; z is left in P if ``keeps``.
extern "C" __global__ void bias_activation(real* product, integer product_unit, integer product_example, integer keeps,
                                           const real* b, integer code, double parameter, real* out, integer out_unit,
                                           integer out_example, integer n, integer m, integer width) {
    Matrix<real> P = matrix(product, product_unit, product_example), A = matrix(out, out_unit, out_example);
    Place p = place(width);
    if (p.unit >= n) return;
    real bias = b[p.unit];
    for (integer e = p.example; e < m; e += p.step) {
        real z = P(p.unit, e) + bias;
        if (keeps) P(p.unit, e) = z;
        A(p.unit, e) = activate(code, real(parameter), z);
    }
}

// The same with dropout, four units a thread, since Philox gives four words: G = g(P + b), A = G * mask / (1 - rate).
extern "C" __global__ void bias_activation_dropout(real* product, integer product_unit, integer product_example,
                                                   integer keeps, const real* b, integer code, double parameter,
                                                   real* before, integer before_unit, integer before_example, real* out,
                                                   integer out_unit, integer out_example, unsigned char* mask,
                                                   integer mask_unit, integer mask_example, integer n, integer m,
                                                   integer width, integer k0, integer k1, integer layer,
                                                   const integer* step, const integer* first, integer keep,
                                                   double scale) {
    Matrix<real> P = matrix(product, product_unit, product_example), A = matrix(out, out_unit, out_example);
    Matrix<real> G = matrix(before, before_unit, before_example);
    Matrix<unsigned char> kept = matrix(mask, mask_unit, mask_example);
    Dropout d = {unsigned(k0), unsigned(k1), unsigned(layer), unsigned(*step), (unsigned long long)*first,
                 (unsigned long long)keep};
    Place p = place(width);  // of a quad
    for (integer e = p.example; e < m; e += p.step) {
        Words words = dropout_words(d, p.unit, e);
        for (int i = 0; i < 4; ++i) {
            integer u = 4 * p.unit + i;
            if (u >= n) break;
            real z = P(u, e) + b[u];
            if (keeps) P(u, e) = z;
            real g = activate(code, real(parameter), z);
            bool alive = survives(d, words.word[i]);
            G(u, e) = g;
            kept(u, e) = alive;
            A(u, e) = alive ? g * real(scale) : real(0);
        }
    }
}

// dZ <- dA * drop * g', in place over dA = W^T dZ_next;  db <- (+) scale * sum over examples. z and mask may be null.
extern "C" __global__ void activation_vjp(real* dA, integer dA_unit, integer dA_example, const real* kept_z,
                                          integer z_unit, integer z_example, const real* kept_a, integer a_unit,
                                          integer a_example, const unsigned char* kept_mask, integer mask_unit,
                                          integer mask_example, double dropout_scale, integer code, double parameter,
                                          integer n, integer m, integer width, real* partial, unsigned* ticket,
                                          const real* scale, real* db, integer accumulate) {
    Matrix<real> D = matrix(dA, dA_unit, dA_example);
    Matrix<const real> Z = matrix(kept_z, z_unit, z_example), A = matrix(kept_a, a_unit, a_example);
    Matrix<const unsigned char> mask = matrix(kept_mask, mask_unit, mask_example);
    Place p = place(width);
    real sum = 0;
    if (p.unit < n)
        for (integer e = p.example; e < m; e += p.step) {
            real d = D(p.unit, e);
            if (kept_mask) d = mask(p.unit, e) ? d * real(dropout_scale) : real(0);
            real z = kept_z ? Z(p.unit, e) : real(0);
            d = activate_vjp(code, real(parameter), d, z, A(p.unit, e));
            D(p.unit, e) = d;
            sum += d;
        }
    write_bias(p, width, n, sum, partial, ticket, scale, db, accumulate);
}

// db <- (+) scale * sum over examples of dZ.
extern "C" __global__ void bias_gradient(const real* dZ, integer dZ_unit, integer dZ_example, integer n, integer m,
                                         integer width, real* partial, unsigned* ticket, const real* scale, real* db,
                                         integer accumulate) {
    Matrix<const real> D = matrix(dZ, dZ_unit, dZ_example);
    Place p = place(width);
    real sum = 0;
    if (p.unit < n)
        for (integer e = p.example; e < m; e += p.step) sum += D(p.unit, e);
    write_bias(p, width, n, sum, partial, ticket, scale, db, accumulate);
}
