// The library's C interface, for ctypes (backends/cpu/library.py). No exception and no C++ type crosses it.
#include <stdlib.h>
#include <string.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif
#include "kernels.h"
#include "thread_pool.h"

#define API extern "C" __attribute__((visibility("default")))
#define INTERFACE_VERSION 1  // of what Python and C++ agree on: names, arguments, schedules
#ifndef SOURCES_DIGEST
#define SOURCES_DIGEST ""
#endif

API int backprop_interface_version() { return INTERFACE_VERSION; }

// Of the sources that this was built from (backprop_gpu/native/build.py).
API const char* backprop_sources_digest() { return SOURCES_DIGEST; }

#ifdef __x86_64__
// Asked of the processor itself, since __builtin_cpu_supports says no in a library that zig links. The bits are those of
// Intel's manual, volume 2, CPUID; XCR0 says which registers the operating system saves (volume 1, 13.3).
static int instruction_sets() {
    unsigned a, b, c, d, ext_b, ext_c, ext_d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !__get_cpuid_count(7, 0, &a, &ext_b, &ext_c, &ext_d)) return 0;
    const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28;
    if ((c & (fma | osxsave | avx)) != (fma | osxsave | avx)) return 0;
    unsigned saved, high;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    const unsigned avx2 = 1u << 5, bmi2 = 1u << 8, ymm = 0x6;
    if ((ext_b & (avx2 | bmi2)) != (avx2 | bmi2) || (saved & ymm) != ymm) return 0;
    const unsigned f = 1u << 16, dq = 1u << 17, cd = 1u << 28, bw = 1u << 30, vl = 1u << 31, zmm = 0xe6;
    return (ext_b & (f | dq | cd | bw | vl)) == (f | dq | cd | bw | vl) && (saved & zmm) == zmm ? 2 : 1;
}
#endif

// Whether this processor has an instruction set: "avx512", "avx2", "neon".
API int backprop_supports(const char* set) {
#ifdef __x86_64__
    return !strcmp(set, "avx512") ? instruction_sets() >= 2 : !strcmp(set, "avx2") && instruction_sets() >= 1;
#else
    return !strcmp(set, "neon");
#endif
}

// A kernel by name; null where there is none. Only for an instruction set that is supported.
API void* backprop_kernel(const char* set, const char* name) {
#ifdef __x86_64__
    const Kernel* table = !strcmp(set, "avx512") ? kernels_avx512() : !strcmp(set, "avx2") ? kernels_avx2() : nullptr;
#else
    const Kernel* table = !strcmp(set, "neon") ? kernels_neon() : nullptr;
#endif
    for (; table && table->name; ++table)
        if (!strcmp(table->name, name)) return (void*)table->function;
    return nullptr;
}

static pthread_key_t workspace_key;
__attribute__((constructor)) static void make_workspace_key() { pthread_key_create(&workspace_key, free_aligned); }
static thread_local void* own_workspace = nullptr;
void* workspace() { return own_workspace; }

// Whether this thread has its workspace; freed when the thread ends.
bool have_workspace() {
    if (own_workspace) return true;
    void* memory = allocate_aligned(64, WORKSPACE_BYTES);
    if (!memory) return false;
    pthread_setspecific(workspace_key, memory);
    own_workspace = memory;
    return true;
}

// Call each of n kernels with its arguments, in order, ``times`` times over. Nonzero: there was no memory for a
// workspace.
API int backprop_run(const Word* kernels, const Word* arguments, Word n, Word times) {
    if (!have_workspace()) return 1;
    FloatingPointMode mode;
    for (; times > 0; --times)
        for (Word i = 0; i < n; ++i) call(kernels[i], arguments[i]);
    return 0;
}

// Whether workers are awake, or were woken now (``wake``), so that a schedule can run in parallel.
API int backprop_call_workers(Word threads, int wake) {
    ThreadPool* pool = thread_pool();
    return pool && pool->call_workers(int(threads), wake);
}

// Run a schedule ``times`` times over, on at most so many threads: on this one alone unless workers were called before.
// Nonzero: there was no memory.
API int backprop_run_schedule(const Word* schedule, Word times, Word threads) {
    ThreadPool* pool = thread_pool();
    if (!pool || !have_workspace()) return 1;
    pool->run(schedule, times, threads);
    return 0;
}
