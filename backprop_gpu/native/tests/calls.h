// What the test programs share: calling kernels by name through the library's C interface, random numbers by integer
// arithmetic, a hash.
#pragma once
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../cpu/kernels.h"

extern "C" {
int backprop_supports(const char* set);
void* backprop_kernel(const char* set, const char* name);
int backprop_run(const Word* kernels, const Word* arguments, Word n, Word times);
int backprop_call_workers(Word threads, int wake);
int backprop_run_schedule(const Word* schedule, Word times, Word threads);
}

namespace {

// A kernel's arguments, in the order of its struct: pointers and whole numbers.
struct Row {
    Word words[24] = {};
    int count = 0;
    void add(const void* x) { words[count++] = (Word)x; }
    void add(Word x) { words[count++] = x; }
    void add(int x) { words[count++] = x; }
    void add(bool x) { words[count++] = x; }
};
template <class... Arguments> Row row(Arguments... arguments) {
    static_assert(sizeof...(Arguments) <= 24);
    Row made;
    (made.add(arguments), ...);
    return made;
}

inline Word kernel_of(const char* set, const char* name) {
    void* found = backprop_kernel(set, name);
    if (!found) {
        printf("there is no kernel %s for %s\n", name, set);
        exit(1);
    }
    return (Word)found;
}

inline void run(Word kernel, const Row& arguments) {
    const Word address = (Word)arguments.words;
    if (backprop_run(&kernel, &address, 1, 1)) abort();
}

class Random {  // xorshift64
    uint64_t state;
public:
    explicit Random(uint64_t seed) : state(seed * 2654435769u + 88172645463325252u) {}
    uint64_t bits() {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        return state;
    }
    int64_t below(int64_t n) { return int64_t((bits() >> 11) % uint64_t(n)); }
    double number() { return double(int64_t(bits() >> 44)) / 524288.0 - 1.0; }  // a multiple of 2^-19 in [-1, 1)
};

constexpr uint64_t FNV_START = 14695981039346656037u;
inline uint64_t fnv1a(const void* data, size_t bytes, uint64_t hash = FNV_START) {
    for (size_t i = 0; i < bytes; ++i) hash = (hash ^ ((const unsigned char*)data)[i]) * 1099511628211u;
    return hash;
}

}  // namespace
