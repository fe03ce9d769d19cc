// Vectors of float and double: the widest that the instruction set of this compilation has.
//
// Arithmetic, comparisons and shuffles are those of GCC's and Clang's vector types; only fused multiply-add and loads and
// stores of a part of a vector need the processor's own intrinsics. Everything has internal linkage, because each file
// is compiled once per instruction set and linked into one library.
#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define INLINE inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

namespace {

#if defined(__AVX512F__)
constexpr int VECTOR_BYTES = 64;
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int VECTOR_BYTES = 32;
#elif defined(__aarch64__)
constexpr int VECTOR_BYTES = 16;
#else
#error "native kernels need AVX2 with FMA, AVX-512 or NEON: compile with -march=x86-64-v3, -march=x86-64-v4 or for aarch64"
#endif

template <class T> struct VectorTypes;
template <> struct VectorTypes<float> {
    typedef float Aligned __attribute__((vector_size(VECTOR_BYTES)));
    typedef float Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));
};
template <> struct VectorTypes<double> {
    typedef double Aligned __attribute__((vector_size(VECTOR_BYTES)));
    typedef double Unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(8), may_alias));
};
template <class T> using Vector = typename VectorTypes<T>::Aligned;
template <class T> constexpr int LANES = VECTOR_BYTES / int(sizeof(T));

template <class T> INLINE Vector<T> broadcast(T x) { return x - Vector<T>{}; }  // x - 0 is x, -0.0 and NaN included
template <class T> INLINE Vector<T> load(const T* from) { return *(const typename VectorTypes<T>::Unaligned*)from; }
template <class T> INLINE void store(T* to, Vector<T> x) { *(typename VectorTypes<T>::Unaligned*)to = x; }

// load(from, count) and store(to, x, count): the first `count` lanes, 0 <= count <= LANES. Memory of the other lanes is
// neither read nor written; loaded, they are 0. fma(a, b, c): a b + c, rounded once.
#if defined(__AVX512F__)

INLINE __mmask16 first_lanes(int count) { return __mmask16((1u << count) - 1); }
INLINE Vector<float> load(const float* from, int count) { return _mm512_maskz_loadu_ps(first_lanes(count), from); }
INLINE Vector<double> load(const double* from, int count) { return _mm512_maskz_loadu_pd(__mmask8(first_lanes(count)), from); }
INLINE void store(float* to, Vector<float> x, int count) { _mm512_mask_storeu_ps(to, first_lanes(count), x); }
INLINE void store(double* to, Vector<double> x, int count) { _mm512_mask_storeu_pd(to, __mmask8(first_lanes(count)), x); }
INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm512_fmadd_ps(a, b, c); }
INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) { return _mm512_fmadd_pd(a, b, c); }

#elif defined(__AVX2__)

alignas(64) constexpr int32_t FIRST_LANES_32[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
alignas(64) constexpr int64_t FIRST_LANES_64[8] = {-1, -1, -1, -1};
INLINE __m256i first_lanes(const float*, int count) { return _mm256_loadu_si256((const __m256i*)(FIRST_LANES_32 + 8 - count)); }
INLINE __m256i first_lanes(const double*, int count) { return _mm256_loadu_si256((const __m256i*)(FIRST_LANES_64 + 4 - count)); }
INLINE Vector<float> load(const float* from, int count) { return _mm256_maskload_ps(from, first_lanes(from, count)); }
INLINE Vector<double> load(const double* from, int count) { return _mm256_maskload_pd(from, first_lanes(from, count)); }
INLINE void store(float* to, Vector<float> x, int count) { _mm256_maskstore_ps(to, first_lanes(to, count), x); }
INLINE void store(double* to, Vector<double> x, int count) { _mm256_maskstore_pd(to, first_lanes(to, count), x); }
INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) { return _mm256_fmadd_pd(a, b, c); }

#else

template <class T> INLINE Vector<T> load(const T* from, int count) {
    if (count == LANES<T>) return load(from);
    Vector<T> x = {};
    for (int i = 0; i < count; ++i) x[i] = from[i];
    return x;
}
template <class T> INLINE void store(T* to, Vector<T> x, int count) {
    if (count == LANES<T>) return store(to, x);
    for (int i = 0; i < count; ++i) to[i] = x[i];
}
INLINE Vector<float> fma(Vector<float> a, Vector<float> b, Vector<float> c) { return vfmaq_f32(c, a, b); }
INLINE Vector<double> fma(Vector<double> a, Vector<double> b, Vector<double> c) { return vfmaq_f64(c, a, b); }

#endif

// The compiler may not form x anew from what it came from: it stays in a register.
#if defined(__x86_64__)
template <class V> INLINE void hold(V& x) { __asm__("" : "+v"(x)); }
#else
template <class V> INLINE void hold(V& x) { __asm__("" : "+w"(x)); }
#endif

template <int... I> struct Indices {};
template <int N, int... I> struct IndicesUpTo : IndicesUpTo<N - 1, N - 1, I...> {};
template <int... I> struct IndicesUpTo<0, I...> { typedef Indices<I...> Type; };

// Groups, of 32 bytes at most, for what is no faster in wider vectors: few columns, and transposing. Shuffles within 16 bytes,
// a piece, are the cheapest.
constexpr int GROUP_BYTES = VECTOR_BYTES < 32 ? VECTOR_BYTES : 32;
template <class T> struct GroupType { typedef T Type __attribute__((vector_size(GROUP_BYTES))); };
template <class T> using Group = typename GroupType<T>::Type;
template <class T> constexpr int GROUP = GROUP_BYTES / int(sizeof(T));
template <class T> constexpr int PIECE = 16 / int(sizeof(T));

template <class V> INLINE V load_as(const void* from) {
    V x;
    __builtin_memcpy(&x, from, sizeof x);
    return x;
}

#if defined(__AVX512F__)
INLINE void store(float* to, Group<float> x) { _mm256_storeu_ps(to, x); }
INLINE void store(double* to, Group<double> x) { _mm256_storeu_pd(to, x); }
INLINE void store(float* to, Group<float> x, int count) { _mm256_mask_storeu_ps(to, __mmask8(first_lanes(count)), x); }
INLINE void store(double* to, Group<double> x, int count) { _mm256_mask_storeu_pd(to, __mmask8(first_lanes(count)), x); }
INLINE Group<float> fma(Group<float> a, Group<float> b, Group<float> c) { return _mm256_fmadd_ps(a, b, c); }
INLINE Group<double> fma(Group<double> a, Group<double> b, Group<double> c) { return _mm256_fmadd_pd(a, b, c); }
#endif
#if defined(__AVX2__)
INLINE Group<float> two_pieces(const float* x, const float* y) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x)), _mm_loadu_ps(y), 1);
}
INLINE Group<double> two_pieces(const double* x, const double* y) { return (Group<double>)two_pieces((const float*)x, (const float*)y); }
#else
template <class T> INLINE Group<T> two_pieces(const T* x, const T*) { return load_as<Group<T>>(x); }
#endif

// In each pair of runs of WIDTH lanes, the second run of x is exchanged with the first of y.
template <int WIDTH, class V, int... I> INLINE void exchange(V& x, V& y, Indices<I...>) {
    constexpr int N = sizeof...(I);
    const V first = __builtin_shufflevector(x, y, (I & WIDTH ? N + I - WIDTH : I)...);
    y = __builtin_shufflevector(x, y, (I & WIDTH ? N + I : I + WIDTH)...);
    x = first;
}

// Transposes squares of N numbers that lie side by side in N vectors: their quarters change places, then the quarters of each
// quarter, and so on.
template <int N, int WIDTH = N / 2, class V> INLINE void transpose(V (&rows)[N]) {
    UNROLL for (int i = 0; i < N; ++i)
        if (!(i & WIDTH)) exchange<WIDTH>(rows[i], rows[i + WIDTH], typename IndicesUpTo<int(sizeof(V) / sizeof(rows[0][0]))>::Type());
    if constexpr (WIDTH > 1) transpose<N, WIDTH / 2>(rows);
}

// The numbers at + 0, 1, ... of each of GROUP lines: those at one place in a vector.
template <class T> INLINE void load_transposed(const T* const* lines, int64_t at, Group<T> (&places)[PIECE<T>]) {
    UNROLL for (int i = 0; i < PIECE<T>; ++i) places[i] = two_pieces(lines[i] + at, lines[GROUP<T> - PIECE<T> + i] + at);
    transpose(places);
}

}  // namespace
