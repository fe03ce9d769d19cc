// Activations and their vector-Jacobian products (maths/activations.py), each backward directly under its forward.
// p is the one parameter: slope of leaky_relu, alpha of elu. A vjp takes dA, the pre-activation z and a = g(z).

BOTH real sigmoid(real z) {
    real e = exp(-fabs(z));
    return (z > real(0) ? real(1) : e) / (real(1) + e);
}

BOTH real sigmoid_vjp(real dA, real a) { return dA * (a * (real(1) - a)); }

BOTH real normal_cdf(real z) { return real(0.5) * (real(1) + erf(z * real(0.7071067811865476))); }

BOTH real gelu(real z) { return z * normal_cdf(z); }

BOTH real gelu_vjp(real dA, real z) {
    real density = exp(real(-0.5) * (z * z)) * real(0.3989422804014327);
    return dA * (normal_cdf(z) + z * density);
}

BOTH real tanh_of_gelu(real z) { return tanh(real(0.7978845608028654) * (z + real(0.044715) * (z * z * z))); }

BOTH real gelu_tanh(real z) { return real(0.5) * z * (real(1) + tanh_of_gelu(z)); }

BOTH real gelu_tanh_vjp(real dA, real z) {
    real t = tanh_of_gelu(z);
    // Beyond 100 the second term is 0 in every precision; the square of a huge z would make it 0 times infinity.
    real near = minimum(maximum(z, real(-100)), real(100));
    real slope = real(0.7978845608028654) * (real(1) + real(0.134145) * (near * near));
    return dA * (real(0.5) * (real(1) + t) + real(0.5) * z * (real(1) - t * t) * slope);
}

BOTH real silu(real z) { return z * sigmoid(z); }

BOTH real silu_vjp(real dA, real z) {
    real s = sigmoid(z);
    return dA * (s * (real(1) + z * (real(1) - s)));
}

BOTH real softplus(real z) { return maximum(z, real(0)) + log1p(exp(-fabs(z))); }

BOTH real softplus_vjp(real dA, real z) { return dA * sigmoid(z); }

BOTH real activate(integer code, real p, real z) {
    switch (code) {
        case SIGMOID: return sigmoid(z);
        case TANH: return tanh(z);
        case RELU: return maximum(z, real(0));
        case LEAKY_RELU: return z > real(0) ? z : p * z;
        case ELU: return z > real(0) ? z : p * expm1(z);
        case GELU: return gelu(z);
        case GELU_TANH: return gelu_tanh(z);
        case SILU: return silu(z);
        case SOFTPLUS: return softplus(z);
        case EXPONENTIAL: return exp(z);
        default: return z;  // IDENTITY
    }
}

BOTH real activate_vjp(integer code, real p, real dA, real z, real a) {
    switch (code) {
        case SIGMOID: return sigmoid_vjp(dA, a);
        case TANH: return dA * (real(1) - a * a);
        case RELU: return a > real(0) ? dA : real(0);
        case LEAKY_RELU: return z > real(0) ? dA : p * dA;
        case ELU: return z > real(0) ? dA : dA * (a + p);
        case GELU: return gelu_vjp(dA, z);
        case GELU_TANH: return gelu_tanh_vjp(dA, z);
        case SILU: return silu_vjp(dA, z);
        case SOFTPLUS: return softplus_vjp(dA, z);
        case EXPONENTIAL: return dA * a;
        default: return dA;  // IDENTITY
    }
}
