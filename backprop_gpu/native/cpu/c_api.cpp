// The library's C interface, for ctypes (backends/cpu/library.py). No exception and no C++ type crosses it.
#include <stdlib.h>
#include <string.h>
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

// Whether this processor has an instruction set: "avx512", "avx2", "neon".
API int backprop_supports(const char* set) {
#ifdef __x86_64__
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (!strcmp(set, "avx2")) return avx2;
    if (!strcmp(set, "avx512"))
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd");
    return 0;
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
__attribute__((constructor)) static void make_workspace_key() { pthread_key_create(&workspace_key, free); }
static thread_local void* own_workspace = nullptr;
void* workspace() { return own_workspace; }

// Whether this thread has its workspace; freed when the thread ends.
bool have_workspace() {
    if (own_workspace) return true;
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, WORKSPACE_BYTES)) return false;
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
