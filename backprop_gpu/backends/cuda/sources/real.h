// What every kernel is written in: the number type, NaN-keeping comparisons, and the few constants of a precision.
// compile.py puts the codes of activations, losses and optimizers in front, and says which type REAL is.

typedef REAL real;
typedef long long integer;  // every argument of a kernel is eight bytes: a pointer, an integer or a double

#define BOTH __host__ __device__ inline

// The smallest normal number: maths' guard of logarithms and quotients.
BOTH real smallest_normal() { return sizeof(real) == 4 ? real(1.1754943508222875e-38) : real(2.2250738585072014e-308); }

// The exponents that a number may have are below this, and nearly as far below 0.
#define EXPONENTS (sizeof(real) == 4 ? 128 : 1024)

BOTH real power_of_two(int exponent) { return real(ldexp(1.0, exponent)); }

// NaN comes through, as through numpy.maximum; fmax and fmin would lose it.
BOTH real maximum(real a, real b) { return a > b || a != a ? a : b; }
BOTH real minimum(real a, real b) { return a < b || a != a ? a : b; }

// The bits of the nearest bfloat16, ties to even: the upper half of a float32's. NaN stays one.
BOTH unsigned short bfloat16(float x) {
    union {
        float number;
        unsigned bits;
    } u;
    u.number = x;
    if (x != x) return (unsigned short)(u.bits >> 16 | 0x40u);
    return (unsigned short)((u.bits + 0x7FFFu + (u.bits >> 16 & 1u)) >> 16);
}

// -1, 0 or 1; NaN stays.
BOTH real sign(real x) { return x > real(0) ? real(1) : (x < real(0) ? real(-1) : x); }
