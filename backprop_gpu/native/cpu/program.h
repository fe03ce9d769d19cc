// A recorded step: its schedule, and running its tasks.
//
// A schedule says which calls may run at once. It is a row of words: the number of stages; for each stage where its
// tasks begin, and the end; for each task where its calls begin, and the end; then (kernel, arguments) of each call.
// Tasks of a stage touch nothing that another of them writes; a stage begins when all tasks of the one before have
// ended.
#pragma once
#include "arguments.h"

namespace {

inline void call(Word kernel, Word arguments) { ((KernelFunction*)kernel)((const Word*)arguments); }

struct Schedule {
    const Word *stages, *tasks, *calls;
    Word n_stages;

    explicit Schedule(const Word* words) : stages(words + 1), n_stages(words[0]) {
        tasks = stages + n_stages + 1;
        calls = tasks + stages[n_stages] + 1;
    }
    void run(Word task) const {
        for (Word i = tasks[task]; i < tasks[task + 1]; ++i) call(calls[2 * i], calls[2 * i + 1]);
    }
};

// While it exists, the thread rounds to nearest and does not flush subnormal numbers; then its former mode is restored.
class FloatingPointMode {
#if defined(__x86_64__)
    unsigned int before = __builtin_ia32_stmxcsr();
public:
    FloatingPointMode() { __builtin_ia32_ldmxcsr(0x1F80); }
    ~FloatingPointMode() { __builtin_ia32_ldmxcsr(before); }
#elif defined(__aarch64__)
    uint64_t before;
public:
    FloatingPointMode() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(before));
        __asm__ volatile("msr fpcr, %0" : : "r"(uint64_t(0)));
    }
    ~FloatingPointMode() { __asm__ volatile("msr fpcr, %0" : : "r"(before)); }
#endif
};

}  // namespace
