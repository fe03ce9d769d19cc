// CUDA's words for a C++ compiler: one block at a time, every thread of it a fiber that gives way at barriers.
//
// A barrier that some thread of the block (or, for a shuffle, of the warp) does not reach is an error, not a wait. Shared
// memory is one region per declaration, as on a card, and holds NaN when a block starts. Threads and blocks run forwards
// or backwards: what depends on their order differs between the two.

#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __global__
#define __host__
#define __device__

namespace emulation {

struct Index {
    unsigned x, y;
};

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

struct Fiber {
    jmp_buf here;
    ucontext_t context;
    std::vector<char> stack;
    State state = DONE;
    bool entered = false;
};

const int WARP = 32, COUNT = THREADS;
Fiber fibers[COUNT];
jmp_buf scheduler;
int current;
void (*body)(const std::int64_t*);
const std::int64_t* arguments;
const char* fault;
std::vector<char> arena(1 << 16, char(0xFF));
std::map<const void*, std::size_t> places;  // of each declaration of shared memory
std::size_t used;
std::uint64_t exchanged[COUNT];

}  // namespace emulation

static emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

__attribute__((noinline)) void give_way(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    if (!_setjmp(fiber.here)) _longjmp(scheduler, 1);
}

void live() {  // a fiber runs one body after the other
    for (;;) {
        body(arguments);
        give_way(DONE);
    }
}

__attribute__((noinline)) void resume(int thread) {
    Fiber& fiber = fibers[thread];
    current = thread;
    threadIdx.x = unsigned(thread);
    fiber.state = READY;
    if (_setjmp(scheduler)) return;
    if (fiber.entered) _longjmp(fiber.here, 1);
    fiber.entered = true;
    fiber.stack.resize(1 << 16);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, live, 0);
    setcontext(&fiber.context);
}

int waiting(State state, int first, int count) {
    int found = 0;
    for (int t = first; t < first + count; ++t) found += fibers[t].state == state;
    return found;
}

// Lets a full barrier of ``count`` threads go; false if it can never be full.
bool release(State state, int first, int count) {
    int here = waiting(state, first, count);
    if (here && waiting(DONE, first, count)) return false;
    if (here == count)
        for (int t = first; t < first + count; ++t) fibers[t].state = READY;
    return true;
}

// A warp runs as far ahead as it can: to a barrier of the block. False if a shuffle never gets all its lanes.
bool run_warp(int first, bool backwards) {
    while (waiting(READY, first, WARP)) {
        for (int i = 0; i < WARP; ++i) {
            int t = backwards ? first + WARP - 1 - i : first + i;
            if (fibers[t].state == READY) resume(t);
        }
        if (!release(AT_WARP_BARRIER, first, WARP)) return false;
    }
    return waiting(AT_WARP_BARRIER, first, WARP) == 0;
}

void run_block(bool backwards) {
    std::memset(arena.data(), 0xFF, arena.size());
    for (Fiber& fiber : fibers) fiber.state = READY;
    while (waiting(DONE, 0, COUNT) < COUNT) {
        bool fine = waiting(READY, 0, COUNT) > 0;
        for (int warp = 0; warp < COUNT; warp += WARP)
            fine = fine && run_warp(backwards ? COUNT - WARP - warp : warp, backwards);
        if (!fine || !release(AT_BLOCK_BARRIER, 0, COUNT)) {
            fault = "a barrier that not every thread reaches";
            for (Fiber& fiber : fibers) fiber = Fiber();
            return;
        }
    }
}

void* shared_memory(const void* declaration, std::size_t bytes) {
    auto found = places.find(declaration);
    if (found == places.end()) {
        found = places.emplace(declaration, used).first;
        used += (bytes + 15) / 16 * 16;
        if (used > arena.size()) fault = "too much shared memory";
    }
    return arena.data() + found->second;
}

template <typename T>
T slot(std::int64_t bits) {
    static_assert(sizeof(T) == 8, "every argument of a kernel is eight bytes");
    T value;
    std::memcpy(&value, &bits, 8);
    return value;
}

template <typename... Types, std::size_t... At>
void call(void (*kernel)(Types...), const std::int64_t* given, std::index_sequence<At...>) {
    kernel(slot<Types>(given[At])...);
}

template <typename... Types>
void unpack(void (*kernel)(Types...), const std::int64_t* given) {
    call(kernel, given, std::index_sequence_for<Types...>());
}

const char* run_grid(void (*thread)(const std::int64_t*), unsigned x, unsigned y, const std::int64_t* given, int backwards) {
    body = thread, arguments = given, fault = nullptr;
    blockDim.x = COUNT, gridDim.x = x, gridDim.y = y;
    for (unsigned i = 0; i < x * y && !fault; ++i) {
        unsigned block = backwards ? x * y - 1 - i : i;
        blockIdx.x = block % x, blockIdx.y = block / x;
        run_block(backwards);
    }
    return fault;
}

}  // namespace emulation

#define SHARED(type, name, count) \
    static char declaration_of_##name; \
    type* name = (type*)emulation::shared_memory(&declaration_of_##name, sizeof(type) * (count))

#define EMULATE(kernel) \
    extern "C" const char* emulate_##kernel(unsigned x, unsigned y, const std::int64_t* given, int backwards) { \
        return emulation::run_grid([](const std::int64_t* a) { emulation::unpack(kernel, a); }, x, y, given, backwards); \
    }

inline void __syncthreads() { emulation::give_way(emulation::AT_BLOCK_BARRIER); }
inline void __threadfence() {}

inline unsigned atomicAdd(unsigned* at, unsigned more) {
    unsigned before = *at;
    *at += more;
    return before;
}

template <typename T>
T __shfl_xor_sync(unsigned, T x, int far) {
    std::memcpy(&emulation::exchanged[threadIdx.x], &x, sizeof(T));
    emulation::give_way(emulation::AT_WARP_BARRIER);
    T other;
    std::memcpy(&other, &emulation::exchanged[threadIdx.x ^ unsigned(far)], sizeof(T));
    emulation::give_way(emulation::AT_WARP_BARRIER);
    return other;
}
