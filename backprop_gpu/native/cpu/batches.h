// Advancing to the next batch and gathering it, inside a recorded step.
#pragma once
#include "arguments.h"

namespace {

template <class T> struct Gather {
    const T* source;              // (rows, width)
    const Word *order, *counters;
    Word stride;
    T* out;                       // (m, width)
    Word m, width;
};

// out[i] <- source[order[stride k + i]], k = counters[0].
template <class T> void gather(const Word* row) {
    const auto& a = read<Gather<T>>(row);
    const Word* order = a.order + a.stride * a.counters[0];
    for (Word i = 0; i < a.m; ++i) {
        const T* __restrict from = a.source + a.width * order[i];
        T* __restrict to = a.out + a.width * i;
        for (Word c = 0; c < a.width; ++c) to[c] = from[c];
    }
}

template <class T> struct Advance {
    Word* counters;               // batch of this pass, optimizer step
    const T* table;               // (batches, n)
    T *values, *step_scalars, *value;
    Word n;
};

// values[k] <- value if k = counters[0] >= 0;  counters += 1;  value <- 0;  step_scalars <- table[counters[0]].
template <class T> void advance(const Word* row) {
    const auto& a = read<Advance<T>>(row);
    if (a.counters[0] >= 0) a.values[a.counters[0]] = *a.value;
    ++a.counters[0], ++a.counters[1];
    *a.value = T(0);
    for (Word i = 0; i < a.n; ++i) a.step_scalars[i] = a.table[a.n * a.counters[0] + i];
}

}  // namespace
