// What differs between operating systems: aligned memory, threads that take no signals, and what a forked child forgets.
// Windows has the rest of POSIX threads from mingw-w64's winpthreads.
#pragma once
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdlib.h>
#ifdef _WIN32
#include <malloc.h>
#else
#include <signal.h>
#endif

namespace {

// Null where there is none; to be given back by ``free_aligned``.
inline void* allocate_aligned(size_t alignment, size_t bytes) {
#ifdef _WIN32
    return _aligned_malloc(bytes, alignment);
#else
    void* memory = nullptr;
    return posix_memalign(&memory, alignment, bytes) ? nullptr : memory;
#endif
}

inline void free_aligned(void* memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

// While it lives, this thread blocks all signals, and so do the threads that it starts. Windows gives Ctrl-C to a thread
// of its own.
struct SignalsBlocked {
#ifndef _WIN32
    sigset_t before;
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before, nullptr); }
#endif
};

// Have a function called in each forked child. Windows has no fork.
inline void call_in_children(void (*function)()) {
#ifdef _WIN32
    (void)function;
#else
    pthread_atfork(nullptr, nullptr, function);
#endif
}

}  // namespace
