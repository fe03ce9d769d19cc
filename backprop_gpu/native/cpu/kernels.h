// The kernels of one instruction set, by name.
#pragma once
#include "arguments.h"

struct Kernel {
    const char* name;  // null at the end of a table
    KernelFunction* function;
};

#ifdef __x86_64__
const Kernel* kernels_avx2();    // x86-64-v3: AVX2 and FMA
const Kernel* kernels_avx512();  // x86-64-v4
#else
const Kernel* kernels_neon();
#endif
