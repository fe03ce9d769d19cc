// The elementary functions over arrays, for tests/native/test_elementary.py: compiled as the kernels compile their loops.
#include "../formulas/elementary.h"
#include "../formulas/trigonometric.h"

#define MAP(name, T, suffix) \
    extern "C" __attribute__((visibility("default"))) void name##_##suffix(const T* x, T* y, long n) { \
        for (long i = 0; i < n; ++i) y[i] = elementary::name(x[i]); \
    }
#define BOTH(name) MAP(name, float, float32) MAP(name, double, float64)

BOTH(exp) BOTH(expm1) BOTH(log) BOTH(log1p_unit) BOTH(tanh) BOTH(sigmoid) BOTH(erf) BOTH(sin) BOTH(cos)
