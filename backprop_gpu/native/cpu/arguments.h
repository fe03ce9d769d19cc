// How kernels are called: void(const Word*), every argument in a row of eight-byte words, which Python writes once when
// a step is recorded. Each kernel reads the row as a struct of its own, whose fields are listed in the same order in
// backends/cpu/kernels.py.
#pragma once
#include <stdint.h>

typedef int64_t Word;
typedef void KernelFunction(const Word*);

// This thread's workspace, for a product's packed factors; allocated when the thread first runs kernels (c_api.cpp).
constexpr unsigned long WORKSPACE_BYTES = 6ul << 20;
void* workspace();
bool have_workspace();

namespace {

template <class Arguments> inline __attribute__((always_inline)) const Arguments& read(const Word* row) {
    static_assert(sizeof(Arguments) % sizeof(Word) == 0, "every field is one word");
    return *(const Arguments*)row;
}

// A one-element buffer that may be left out.
template <class T> inline __attribute__((always_inline)) T scalar(const T* at, T otherwise) { return at ? *at : otherwise; }

}  // namespace
