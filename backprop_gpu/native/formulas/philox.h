// Philox-4x32-10, a counter-based generator (Salmon, Moraes, Dror & Shaw, SC 2011), as in maths/random.py.
#pragma once
#include "real.h"

namespace philox {
namespace {

typedef unsigned int Word;
typedef unsigned long long Wide;
struct Words {
    Word w0, w1, w2, w3;
};

// The four words of counter (c0, c1, c2, c3) under the key (k0, k1).
FORMULA Words words(Word c0, Word c1, Word c2, Word c3, Word k0, Word k1) {
#ifndef __CUDACC__
#pragma GCC unroll 10
#endif
    for (int round = 0; round < 10; ++round) {
        Wide p0 = (Wide)0xD2511F53u * c0, p1 = (Wide)0xCD9E8D57u * c2;
        c0 = (Word)(p1 >> 32) ^ c1 ^ k0;
        c2 = (Word)(p0 >> 32) ^ c3 ^ k1;
        c1 = (Word)p1;
        c3 = (Word)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return {c0, c1, c2, c3};
}

}  // namespace
}  // namespace philox
