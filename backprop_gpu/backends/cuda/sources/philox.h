// Philox-4x32-10 (Salmon, Moraes, Dror & Shaw 2011): the words of maths/random.py, bit for bit.

struct Words {
    unsigned word[4];
};

BOTH Words philox(unsigned c0, unsigned c1, unsigned c2, unsigned c3, unsigned k0, unsigned k1) {
    for (int round = 0; round < 10; ++round) {
        unsigned long long p0 = 0xD2511F53ull * c0, p1 = 0xCD9E8D57ull * c2;
        c0 = unsigned(p1 >> 32) ^ c1 ^ k0;
        c2 = unsigned(p0 >> 32) ^ c3 ^ k1;
        c1 = unsigned(p1);
        c3 = unsigned(p0);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    Words words = {{c0, c1, c2, c3}};
    return words;
}

// Dropout of one layer. Unit u of an example survives where word u % 4 of (u / 4, the example's position in the batch,
// layer, step) is below ``keep`` = (1 - rate) 2^32.
struct Dropout {
    unsigned k0, k1, layer, step;
    unsigned long long first, keep;
};

BOTH Words dropout_words(const Dropout& d, integer quad, integer example) {
    return philox(unsigned(quad), unsigned(d.first + example), d.layer, d.step, d.k0, d.k1);
}

BOTH bool survives(const Dropout& d, unsigned word) { return word < d.keep; }
