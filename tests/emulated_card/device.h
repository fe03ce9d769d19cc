// CUDA C++'s words for g++: the text of a kernel follows this header, and BIND(kernel) makes it callable (driver.cpp).
//
// Threads of a block are fibers on stacks of their own, switched at barriers and shuffles, so that what a kernel does
// between two barriers is done by thread 0 first and the last thread last. Kernels without either run as one thread, one
// block: they are loops over a grid. Races between threads that run at once are not seen.
#pragma once
#include <ucontext.h>
#include <xmmintrin.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
struct Index {
    unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;
static const int warpSize = 32;
using std::abs;
using std::erf;
using std::exp;
using std::expm1;
using std::fabs;
using std::floor;
using std::isfinite;
using std::isinf;
using std::isnan;
using std::log;
using std::log1p;
using std::max;
using std::min;
using std::pow;
using std::signbit;
using std::sqrt;
using std::tanh;

template <class To, class From>
static inline To same_bits(From from) {
    static_assert(sizeof(To) == sizeof(From));
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline float __int_as_float(int x) { return same_bits<float>(x); }
static inline double __longlong_as_double(long long x) { return same_bits<double>(x); }
#define CUDART_INF_F __int_as_float(0x7f800000)
#define CUDART_NAN_F __int_as_float(0x7fffffff)
#define CUDART_INF __longlong_as_double(0x7ff0000000000000ULL)
#define CUDART_NAN __longlong_as_double(0xfff8000000000000ULL)

namespace card {

const size_t STACK = 1 << 16, SHARED_MEMORY = 1 << 17;
const unsigned FLUSH_TO_ZERO = 0x8040;  // FTZ and DAZ of MXCSR

enum State { READY, AT_BARRIER, IN_WARP, ENDED };

struct Fiber {
    jmp_buf here;
    ucontext_t context;
    std::vector<char> stack;
    State state = ENDED;
    bool started = false;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static int current;
static std::function<void()>* body;
static std::vector<char> shared_memory;
static std::map<const void*, size_t> shared_places;
static size_t shared_used;
static uint64_t exchanged[1024];

[[noreturn]] static void fault(const char* what) {
    std::fprintf(stderr, "emulated card: %s\n", what);
    std::abort();
}

__attribute__((noinline)) static void leave(State state) {
    Fiber& fiber = fibers[current];
    fiber.state = state;
    if (!_setjmp(fiber.here)) _longjmp(scheduler, 1);
}

static void fiber_main() {
    for (;;) {
        (*body)();
        leave(ENDED);
    }
}

__attribute__((noinline)) static void enter(int thread) {
    Fiber& fiber = fibers[thread];
    current = thread;
    threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / blockDim.x / blockDim.y};
    fiber.state = READY;
    if (_setjmp(scheduler)) return;
    if (fiber.started) _longjmp(fiber.here, 1);
    fiber.started = true;
    fiber.stack.resize(STACK);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.data();
    fiber.context.uc_stack.ss_size = fiber.stack.size();
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    setcontext(&fiber.context);
}

static int count(State state, int first, int n) {
    return std::count_if(&fibers[first], &fibers[first] + n, [=](const Fiber& fiber) { return fiber.state == state; });
}

// Threads first, ..., first + n - 1 until each is at a barrier or has ended.
static void run_warp(int first, int n) {
    while (count(READY, first, n)) {
        for (int thread = first; thread < first + n; thread++)
            if (fibers[thread].state == READY) enter(thread);
        const int in_warp = count(IN_WARP, first, n);
        if (in_warp == n) {
            for (int thread = first; thread < first + n; thread++) fibers[thread].state = READY;
        } else if (in_warp) {
            fault("a shuffle that not every lane reaches");
        }
    }
}

static void run_block(int n) {
    std::memset(shared_memory.data(), 0xFF, shared_memory.size());
    for (int thread = 0; thread < n; thread++) fibers[thread].state = READY;
    while (count(ENDED, 0, n) < n) {
        for (int first = 0; first < n; first += warpSize) run_warp(first, std::min(warpSize, n - first));
        // Every thread is at the barrier or has ended, which counts as having arrived.
        for (int thread = 0; thread < n; thread++)
            if (fibers[thread].state == AT_BARRIER) fibers[thread].state = READY;
    }
}

static void* shared(const void* declaration, size_t size) {
    auto [place, is_new] = shared_places.emplace(declaration, shared_used);
    if (is_new && (shared_used += (size + 15) / 16 * 16) > SHARED_MEMORY) fault("too much shared memory");
    return shared_memory.data() + place->second;
}

static void run_grid(bool as_fibers, Index grid, Index block) {
    if (!as_fibers) {
        gridDim = blockDim = {1, 1, 1};
        blockIdx = threadIdx = {0, 0, 0};
        (*body)();
        return;
    }
    gridDim = grid, blockDim = block;
    const int n = block.x * block.y * block.z;
    if (int(fibers.size()) < n) {
        fibers.clear();
        fibers.resize(n);
    }
    shared_memory.resize(SHARED_MEMORY);
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = {x, y, z};
                run_block(n);
            }
}

static void run(std::function<void()> kernel, bool as_fibers, Index grid, Index block) {
    body = &kernel;
    const unsigned before = _mm_getcsr();
#ifdef EMULATED_FTZ
    _mm_setcsr(before | FLUSH_TO_ZERO);
#endif
    run_grid(as_fibers, grid, block);
    _mm_setcsr(before);
}

using Bound = std::function<void(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned)>;

template <class... T, size_t... I>
static std::tuple<std::remove_cv_t<T>...> copied(void (*)(T...), void** arguments, std::index_sequence<I...>) {
    return {*static_cast<std::remove_cv_t<T>*>(arguments[I])...};
}

// The kernel with the arguments of a launch, which CUDA copies at once.
template <class... T>
static Bound* bound(void (*kernel)(T...), void** arguments, bool as_fibers) {
    auto values = copied(kernel, arguments, std::index_sequence_for<T...>());
    return new Bound([=](unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz) {
        run([&] { std::apply(kernel, values); }, as_fibers, {gx, gy, gz}, {bx, by, bz});
    });
}

}  // namespace card

#define SHARED(type, name, n)            \
    static char declaration_of_##name;   \
    type* name = (type*)card::shared(&declaration_of_##name, sizeof(type) * (n))
#define BIND(kernel, as_fibers) \
    extern "C" card::Bound* bind_##kernel(void** arguments) { return card::bound(kernel, arguments, as_fibers); }

static inline void __syncthreads() { card::leave(card::AT_BARRIER); }
static inline void __threadfence() {}
static inline void __syncwarp(unsigned = 0xffffffffu) { card::leave(card::IN_WARP); }
static inline unsigned atomicAdd(unsigned* to, unsigned value) {
    const unsigned before = *to;
    *to += value;
    return before;
}
template <class T>
static T from_lane(T mine, unsigned lane) {
    std::memcpy(&card::exchanged[card::current], &mine, sizeof(T));
    __syncwarp();
    T other;
    std::memcpy(&other, &card::exchanged[(card::current & ~31) + (lane & 31)], sizeof(T));
    __syncwarp();
    return other;
}
template <class T>
static T __shfl_xor_sync(unsigned, T mine, int mask) {
    return from_lane(mine, (card::current & 31) ^ mask);
}
template <class T>
static T __shfl_down_sync(unsigned, T mine, int lanes) {
    const int lane = (card::current & 31) + lanes;
    return from_lane(mine, lane > 31 ? card::current & 31 : lane);
}
