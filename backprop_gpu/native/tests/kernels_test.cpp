// Every kernel with odd shapes and odd numbers, for AddressSanitizer and UndefinedBehaviorSanitizer: no and one row, prime
// sizes, rows at any address, NaN, infinities, subnormal numbers. Nothing outside the arguments is touched, inputs stay as
// they were, and the results have the same bits wherever the arrays lie and on every instruction set (any NaN is equal to
// any other).
//
// kernels_test [shapes of each kernel]
#include <initializer_list>
#include "calls.h"
#include "asan.h"

namespace {

struct Shape {
    Word n, k, m;
    bool special;  // numbers that are none, and those at the ends of the number line
    int offset;    // of every array from a multiple of 64 bytes, in numbers
    uint64_t seed;
};

template <class T> T random_number(Random& random, bool special) {
    const double number = random.number();
    if (!special || random.below(20)) return T(number);
    const T tiny = sizeof(T) == 4 ? T(1e-44f) : T(5e-324), huge = sizeof(T) == 4 ? T(3e38f) : T(1.7e308);
    const T choices[] = {T(0), -T(0), T(__builtin_inf()), -T(__builtin_inf()), T(__builtin_nan("")), tiny, -tiny, huge, -huge, T(90)};
    return choices[random.below(10)];
}

// The arrays of one call, each between two guard zones.
class Arrays {
    static constexpr size_t GUARD = 128;
    struct Array {
        char *start, *data;
        size_t bytes, size;  // size: of a number; 1 and 8 (Word) are whole numbers if `whole`
        bool written, whole;
        uint64_t before;
    } arrays[20];
    int count = 0;
    const Shape& shape;

    template <class T> T* make(Word n, bool written, bool whole) {
        Array& a = arrays[count++];
        a.bytes = size_t(n) * sizeof(T), a.size = sizeof(T), a.written = written, a.whole = whole;
        if (posix_memalign((void**)&a.start, 64, 2 * GUARD + size_t(shape.offset) * sizeof(T) + a.bytes)) abort();
        a.data = a.start + GUARD + size_t(shape.offset) * sizeof(T);
        memset(a.start, 0xA5, size_t(a.data - a.start) + a.bytes + GUARD);
        return (T*)a.data;
    }
    static uint64_t hash(const Array& a) { return fnv1a(a.data, a.bytes); }
    template <class T> static uint64_t hash_numbers(const Array& a, uint64_t before) {
        for (size_t i = 0; i < a.bytes / sizeof(T); ++i) {
            T x = ((const T*)a.data)[i];
            if (x != x) x = T(12345.678);
            before = fnv1a(&x, sizeof x, before);
        }
        return before;
    }

public:
    Random random;
    explicit Arrays(const Shape& given) : shape(given), random(given.seed) {}
    ~Arrays() {
        for (int i = 0; i < count; ++i) free(arrays[i].start);
    }
    template <class T> T* numbers(Word n, bool written) {
        T* x = make<T>(n, written, false);
        for (Word i = 0; i < n; ++i) x[i] = random_number<T>(random, shape.special);
        return x;
    }
    Word* words(Word n, Word below, bool written = false) {
        Word* x = make<Word>(n, written, true);
        for (Word i = 0; i < n; ++i) x[i] = random.below(below);
        return x;
    }
    uint8_t* bytes(Word n, bool written) {
        uint8_t* x = make<uint8_t>(n, written, true);
        for (Word i = 0; i < n; ++i) x[i] = uint8_t(random.below(2));
        return x;
    }
    void guard() {
        for (int i = 0; i < count; ++i) {
            Array& a = arrays[i];
            a.before = hash(a);
            ASAN_POISON_MEMORY_REGION(a.start, size_t(a.data - a.start));
            ASAN_POISON_MEMORY_REGION(a.data + a.bytes, GUARD);
        }
    }
    // The hash of what was written; false where something else was.
    bool check(uint64_t& results) {
        results = FNV_START;
        for (int i = 0; i < count; ++i) {
            const Array& a = arrays[i];
            const size_t front = size_t(a.data - a.start);
            ASAN_UNPOISON_MEMORY_REGION(a.start, front + a.bytes + GUARD);
            for (size_t at = 0; at < front + a.bytes + GUARD; ++at)
                if ((at < front || at >= front + a.bytes) && uint8_t(a.start[at]) != 0xA5) return false;
            if (!a.written && hash(a) != a.before) return false;
            if (!a.written) continue;
            results = a.whole ? fnv1a(a.data, a.bytes, results)
                      : a.size == 4 ? hash_numbers<float>(a, results) : hash_numbers<double>(a, results);
        }
        return true;
    }
};

bool begins(const char* name, const char* with) { return !strncmp(name, with, strlen(with)); }

// Arguments for the kernel of a name, without its type; false: this test does not know its kind.
template <class T> bool arguments_of(const char* name, Arrays& x, const Shape& s, Row& r) {
    const Word n = s.n, k = s.k, m = s.m, some = 1 + x.random.below(3), sizes[] = {0, 1, 31, 4095, 4096, 4097, 9001};
    const Word many = sizes[x.random.below(7)], blocks = (many + 4095) / 4096;
    const bool coin = x.random.below(2), other = x.random.below(2);
    const auto in = [&](Word count) { return x.numbers<T>(count, false); };
    const auto out = [&](Word count) { return x.numbers<T>(count, true); };
    const auto perhaps = [&](bool there, Word count) { return there ? in(count) : nullptr; };
    // Layers of which a call has some of the columns: rows are `pitch` apart, and end with the last of them.
    const Word pitch = m + 3 * coin, wide = k + 2 * other;
    const auto pitched = [&](Word rows, Word width, Word apart) { return rows > 0 ? (rows - 1) * apart + width : 0; };
    if (begins(name, "dense_vjp_params")) {
        T *dZ = in(n * m), *A = in(coin ? pitched(m, k, wide) : k * m), *dW = out(pitched(n, k, wide));
        r = row(dZ, coin, A, dW, n, k, m, perhaps(other, 1), x.random.below(2), wide);
    } else if (begins(name, "dense_vjp_input")) {
        T *W = in(pitched(n, k, wide)), *dZ = in(pitched(n, m, pitch)), *A = in(pitched(k, m, pitch)), *to = out(pitched(k, m, pitch));
        r = row(W, dZ, A, to, coin ? nullptr : out(k), n, k, m, in(1), in(pitched(k, m, pitch)), perhaps(other, 1), other,
                x.bytes(pitched(k, m, pitch), false), wide, pitch);
    } else if (begins(name, "dense_")) {
        T *W = in(n * k), *A = in(other ? m * k : pitched(k, m, pitch)), *b = in(n), *to = out(pitched(n, m, pitch));
        r = row(W, other, A, b, to, n, k, m, in(1), out(pitched(n, m, pitch)), pitch);
    } else if (begins(name, "activate_")) {
        r = row(out(n * m), n, m, in(1), out(n * m));
    } else if (begins(name, "row_sums")) {
        r = row(in(n * m), out(n), n, m, perhaps(coin, 1), other);
    } else if (begins(name, "drop")) {
        T *A = out(pitched(n, m, pitch)), *derivative = out(pitched(n, m, pitch));
        r = row(A, derivative, x.bytes(pitched(n, m, pitch), true), x.words(1, 1000), x.words(4, Word(1) << 32), in(1), x.words(1, 1000), n, m, pitch, 16);
    } else if (begins(name, "batch_norm_inference")) {
        r = row(in(n * m), in(n), in(n), in(n), in(n), out(n * m), n, m);
    } else if (begins(name, "batch_norm_vjp")) {
        r = row(in(n * m), in(n * m), in(n), in(n), perhaps(coin, m), perhaps(other, 1), out(n * m), out(n), x.random.below(2), n, m);
    } else if (begins(name, "batch_norm")) {
        r = row(in(n * m), in(n), in(n), perhaps(coin, m), out(n), out(n), out(n * m), out(n * m), out(n), n, m);
    } else if (begins(name, "member_weights_vjp")) {
        T *G = in(pitched(n, m, pitch)), *W = in(pitched(n, m, pitch)), *r_m = in(m), *s = perhaps(other, n);
        r = row(G, W, r_m, s, out(pitched(n, m, pitch)), out(m), coin, other, n, m, pitch);
    } else if (begins(name, "member_outputs_vjp")) {
        r = row(in(n * m), in(n * m), in(m), out(n), coin, n, m);
    } else if (begins(name, "member_weights")) {
        r = row(in(n * m), in(m), perhaps(coin, n), out(n * m), n, m);
    } else if (begins(name, "parametric_vjp")) {
        T *dA = in(n * m), *D = in(n * m), *S = in(n * m), *alpha = in(n), *scale = perhaps(coin, 1);
        r = row(dA, D, S, alpha, scale, out(n * m), out(n), out(n), x.random.below(2), other, n, m);
    } else if (begins(name, "parametric")) {
        T *Z = in(n * m), *alpha = in(n), *p = in(1), *A = out(n * m), *D = out(n * m), *S = out(n * m);
        r = row(Z, alpha, p, A, coin ? D : nullptr, coin ? S : nullptr, n, m);
    } else if (begins(name, "scaling_vjp")) {
        T *dH = in(n * m), *X = in(n * m), *dX = out(other ? n * m : 0);
        r = row(dH, X, in(n), perhaps(coin, 1), other ? dX : nullptr, out(n), x.random.below(2), n, m, coin ? m : 1, coin ? 1 : n);
    } else if (begins(name, "scaling")) {
        r = row(in(n * m), in(n), out(n * m), n, m, coin ? m : 1, coin ? 1 : n);
    } else if (begins(name, "periodic_vjp")) {
        T *dE = in(n * some * m), *X = in(n * m), *P = in(n * k * m), *Q = in(n * k * m), *V = in(n * some * k), *scale = perhaps(other, 1);
        T *dw = out(n * k), *db = out(n * k), *dV = out(n * some * k), *dc = out(n * some);
        r = row(dE, X, P, Q, V, scale, dw, db, dV, dc, x.random.below(2), n, k, some, m, coin ? m : 1, coin ? 1 : n);
    } else if (begins(name, "periodic")) {
        T *X = in(n * m), *w = in(n * k), *b = in(n * k), *V = in(n * some * k), *c = in(n * some);
        T *E = out(n * some * m), *P = out(n * k * m), *Q = out(n * k * m);
        r = row(X, w, b, V, c, E, P, other ? Q : nullptr, n, k, some, m, coin ? m : 1, coin ? 1 : n);
    } else if (begins(name, "output_delta")) {
        const Word outputs = n + 1;
        const void* targets = strstr(name, "labels") ? (const void*)x.words(m, outputs) : in(outputs * m);
        Word* groups = x.words(2, 1);
        groups[0] = coin ? outputs : n, groups[1] = 1;
        const Word n_groups = groups[0] == outputs ? 1 : n ? 2 : 1;
        if (!n) groups[0] = 1;
        T *Z = in(pitched(outputs, m, pitch)), *dZ = out(pitched(outputs, m, pitch));
        r = row(Z, dZ, targets, perhaps(other, m), in(1), x.random.below(2), out(m), outputs, m, pitch, in(2 * some), some, groups, n_groups);
    } else if (begins(name, "output_sums")) {
        r = row(in(m), in(n * m), in(1), coin, out(n), other, out(1), n, m, x.numbers<double>(1, true));
    } else if (begins(name, "update_")) {
        T *theta = out(many), *grad = in(many), *state[] = {out(many), out(many), out(many)};
        r = row(theta, grad, state[0], state[1], state[2], in(3), in(5), perhaps(coin, 1), many);
    } else if (begins(name, "average")) {
        r = row(in(many), out(many), in(1), many);
    } else if (begins(name, "penalty_value")) {
        r = row(x.numbers<double>(m, false), m, out(1));
    } else if (begins(name, "penalty")) {
        const Word first = x.random.below(3);
        r = row(in(many), out(many), perhaps(coin, 1), perhaps(other, 1), x.numbers<double>(blocks, true), first, blocks, many + 4096 * first);
    } else if (begins(name, "squares")) {
        const Word first = x.random.below(3);
        r = row(in(many), x.numbers<double>(blocks, true), x.numbers<double>(blocks, true), first, blocks, many + 4096 * first);
    } else if (begins(name, "global_norm")) {
        r = row(x.numbers<double>(m + 1, false), x.numbers<double>(m + 1, false), m + 1, in(1), out(1), out(1));
    } else if (begins(name, "gather")) {
        Word *order = x.words(2 * m, some), *counters = x.words(2, 2);
        const void* source = strstr(name, "int64") ? (const void*)x.words(some * n, 100) : in(some * n);
        r = row(source, order, counters, m, strstr(name, "int64") ? (const void*)x.words(m * n, 9, true) : out(m * n), m, n);
    } else if (begins(name, "advance")) {
        Word* counters = x.words(2, 3, true);
        --counters[0];
        T *table = in(4 * n), *values = out(4), *scalars = out(n);
        r = row(counters, table, values, scalars, out(1), n);
    } else {
        return false;
    }
    return true;
}

// The hash of a kernel's results for a shape.
uint64_t results_of(const Kernel& kernel, const Shape& s) {
    Arrays x(s);
    Row arguments;
    const bool wide = strstr(kernel.name, "_float64");
    if (!(wide ? arguments_of<double>(kernel.name, x, s, arguments) : arguments_of<float>(kernel.name, x, s, arguments))) {
        printf("no arguments are described for %s\n", kernel.name);
        exit(1);
    }
    x.guard();
    run((Word)kernel.function, arguments);
    uint64_t results;
    if (x.check(results)) return results;
    printf("%s touches what is not its own, n %d k %d m %d\n", kernel.name, int(s.n), int(s.k), int(s.m));
    exit(1);
}

const Kernel* named(const Kernel* table, const char* name) {
    while (table->name && strcmp(table->name, name)) ++table;
    return table->name ? table : nullptr;
}

}  // namespace

int main(int count, char** arguments) {
    const int shapes = count > 1 ? atoi(arguments[1]) : 40;
    const Word rows[] = {0, 1, 2, 3, 5, 7, 13, 17, 31}, depths[] = {1, 2, 3, 8, 19, 37};
    const Word columns[] = {0, 1, 2, 3, 7, 8, 13, 16, 17, 31, 33, 67, 127, 255, 256, 257, 263, 521};
    const Kernel* tables[2];
    int n_tables = 0;
    // Those that this program was linked with and that the processor has.
#ifdef __x86_64__
    if (kernels_avx2()->name && backprop_supports("avx2")) tables[n_tables++] = kernels_avx2();
    if (kernels_avx512()->name && backprop_supports("avx512")) tables[n_tables++] = kernels_avx512();
#else
    tables[n_tables++] = kernels_neon();
#endif
    Random random(7);
    int calls = 0, kernels = 0;
    for (const Kernel* kernel = tables[0]; n_tables && kernel->name; ++kernel, ++kernels)
        for (int i = 0; i < shapes; ++i) {
            Shape s = {rows[i < 9 ? i : random.below(9)], depths[random.below(6)], columns[i < 18 ? i : random.below(18)], i % 3 == 2, 0, random.bits()};
            uint64_t first = 0;
            for (int table = 0; table < n_tables; ++table)
                for (int offset : {0, 1, 5}) {
                    s.offset = offset;
                    const Kernel* same = named(tables[table], kernel->name);
                    const uint64_t results = same ? results_of(*same, s) : 0;
                    if (!calls++ || (!table && !offset)) first = results;
                    if (results == first) continue;
                    printf("%s: other bits, table %d, offset %d, n %d k %d m %d\n", kernel->name, table, offset, int(s.n), int(s.k), int(s.m));
                    return 1;
                }
        }
    printf("%d kernels of %d instruction sets, %d calls: nothing else is touched, the same bits\n", kernels, n_tables, calls);
    return n_tables ? 0 : 2;
}
