// The elementary functions over arrays, for tests/native/test_elementary.py: compiled as the kernels compile their loops.
#include "../formulas/elementary.h"
#include "../formulas/trigonometric.h"

#define MAP(name, T, suffix) \
    extern "C" __attribute__((visibility("default"))) void name##_##suffix(const T* x, T* y, long n) { \
        for (long i = 0; i < n; ++i) y[i] = elementary::name(x[i]); \
    }
#define BOTH(name) MAP(name, float, float32) MAP(name, double, float64)

// Of two numbers each: those beside each other in x.
#define MAP_PAIRS(name, T, suffix) \
    extern "C" __attribute__((visibility("default"))) void name##_##suffix(const T* x, T* y, long n) { \
        for (long i = 0; i + 1 < n; ++i) y[i] = name(x[i], x[i + 1]); \
    }
#define BOTH_PAIRS(name) MAP_PAIRS(name, float, float32) MAP_PAIRS(name, double, float64)

BOTH_PAIRS(maximum) BOTH_PAIRS(minimum)
BOTH(exp) BOTH(expm1) BOTH(log) BOTH(log1p_unit) BOTH(tanh) BOTH(sigmoid) BOTH(erf) BOTH(sin) BOTH(cos)
