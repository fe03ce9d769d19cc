// The products of cuBLAS and cuBLASLt that the package asks for, as a chain of FMA over k; nothing of how a card chooses.
//
// Constants are those of cublas_api.h and cublasLt.h, whose packages take hundreds of megabytes.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "streams.h"

namespace {

enum Status { SUCCESS = 0, INVALID_VALUE = 7, NOT_SUPPORTED = 15 };
enum Type { FLOAT32 = 0, FLOAT64 = 1, BFLOAT16 = 14 };
const int COMPUTE_FAST_TF32 = 77, POINTER_MODE_DEVICE = 1;

struct Handle {
    cudaStream_t stream = nullptr;
    int pointer_mode = 0, math_mode = 0;
};

struct Matrix {
    bool transposed;
    long ld;
};

float as_tf32(float x) {  // 10 bits after the point, to nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFFu;
    std::memcpy(&x, &bits, 4);
    return x;
}

float from_bfloat16(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// D (m, n) <- alpha op(A) op(B) + beta C, column-major; ``read`` makes a factor's element a number of type T.
template <class T, class Element, class Read>
void product(Matrix ma, Matrix mb, long m, long n, long k, T alpha, const Element* A, const Element* B, T beta, const T* C,
             T* D, long ldd, Read read) {
    std::vector<T> rows(m * k), columns(k * n);
    for (long i = 0; i < m; i++)
        for (long l = 0; l < k; l++) rows[i * k + l] = read(ma.transposed ? A[l + i * ma.ld] : A[i + l * ma.ld]);
    for (long j = 0; j < n; j++)
        for (long l = 0; l < k; l++) columns[j * k + l] = read(mb.transposed ? B[j + l * mb.ld] : B[l + j * mb.ld]);
    for (long j = 0; j < n; j++)
        for (long i = 0; i < m; i++) {
            T sum = 0;
            for (long l = 0; l < k; l++) sum = std::fma(rows[i * k + l], columns[j * k + l], sum);
            sum *= alpha;
            if (beta != 0) sum += beta * C[i + j * ldd];
            D[i + j * ldd] = sum;
        }
}

}  // namespace

using namespace card;

extern "C" {

int cublasCreate_v2(void** handle) {
    *handle = new Handle;
    return SUCCESS;
}
int cublasDestroy_v2(void* handle) {
    delete static_cast<Handle*>(handle);
    return SUCCESS;
}
int cublasGetVersion_v2(void*, int* version) {
    *version = 120900;
    return SUCCESS;
}
int cublasSetStream_v2(void* handle, cudaStream_t stream) {
    static_cast<Handle*>(handle)->stream = stream;
    return SUCCESS;
}
int cublasGetStream_v2(void* handle, cudaStream_t* stream) {
    *stream = static_cast<Handle*>(handle)->stream;
    return SUCCESS;
}
int cublasSetPointerMode_v2(void* handle, int mode) {
    static_cast<Handle*>(handle)->pointer_mode = mode;
    return SUCCESS;
}
int cublasGetPointerMode_v2(void* handle, int* mode) {
    *mode = static_cast<Handle*>(handle)->pointer_mode;
    return SUCCESS;
}
int cublasSetMathMode(void* handle, int mode) {
    static_cast<Handle*>(handle)->math_mode = mode;
    return SUCCESS;
}
int cublasGetMathMode(void* handle, int* mode) {
    *mode = static_cast<Handle*>(handle)->math_mode;
    return SUCCESS;
}
int cublasGemmEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* A, int a_type, int lda,
                 const void* B, int b_type, int ldb, const void* beta, void* C, int c_type, int ldc, int compute, int) {
    LOCKED;
    log("gemm " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
    if (a_type != b_type || a_type != c_type || (a_type != FLOAT32 && a_type != FLOAT64)) return NOT_SUPPORTED;
    if (lda < std::max(1, ta ? k : m) || ldb < std::max(1, tb ? n : k) || ldc < std::max(1, m)) return INVALID_VALUE;
    Stream* stream = stream_of(static_cast<Handle*>(handle)->stream);
    const Matrix ma{ta != 0, lda}, mb{tb != 0, ldb};
    auto run = [=](auto one, auto read) {
        using T = decltype(one);
        const T a = *static_cast<const T*>(alpha), b = *static_cast<const T*>(beta);  // on the host
        auto* c = static_cast<T*>(C);
        enqueue(stream, [=] {
            product<T, T>(ma, mb, m, n, k, a, static_cast<const T*>(A), static_cast<const T*>(B), b, c, c, ldc, read);
        });
    };
    if (c_type == FLOAT64) run(1.0, [](double x) { return x; });
    else if (compute == COMPUTE_FAST_TF32) run(1.0f, as_tf32);
    else run(1.0f, [](float x) { return x; });
    return SUCCESS;
}

int cublasGemmStridedBatchedEx(void* handle, int ta, int tb, int m, int n, int k, const void* alpha, const void* A,
                               int a_type, int lda, long long a_stride, const void* B, int b_type, int ldb,
                               long long b_stride, const void* beta, void* C, int c_type, int ldc, long long c_stride,
                               int batches, int compute, int algorithm) {
    const long long size = c_type == FLOAT64 ? 8 : 4;
    for (long long i = 0; i < batches; i++) {
        const char* a = static_cast<const char*>(A) + i * a_stride * size;
        const char* b = static_cast<const char*>(B) + i * b_stride * size;
        char* c = static_cast<char*>(C) + i * c_stride * size;
        const int status = cublasGemmEx(handle, ta, tb, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c, c_type, ldc,
                                        compute, algorithm);
        if (status) return status;
    }
    return SUCCESS;
}

// -- cuBLASLt ---------------------------------------------------------------------------------------------------------

struct Descriptor {  // of an operation, a matrix or a preference, as cuBLASLt's three kinds
    enum Kind { OPERATION, LAYOUT, PREFERENCE } kind;
    int compute = 0, pointer_mode = 0, transposed_a = 0, transposed_b = 0;
    int type = 0;
    uint64_t rows = 0, columns = 0;
    int64_t ld = 0;
    uint64_t workspace = 0;
    uint32_t alignments[4] = {256, 256, 256, 256};
};

int cublasLtCreate(void** handle) {
    *handle = new Handle;
    return SUCCESS;
}
int cublasLtMatmulDescCreate(void** made, int compute, int) {
    *made = new Descriptor{Descriptor::OPERATION, compute};
    return SUCCESS;
}
int cublasLtMatrixLayoutCreate(void** made, int type, uint64_t rows, uint64_t columns, int64_t ld) {
    auto* layout = new Descriptor{Descriptor::LAYOUT};
    layout->type = type, layout->rows = rows, layout->columns = columns, layout->ld = ld;
    *made = layout;
    return SUCCESS;
}
int cublasLtMatmulPreferenceCreate(void** made) {
    *made = new Descriptor{Descriptor::PREFERENCE};
    return SUCCESS;
}
static int destroyed(void* descriptor) {
    delete static_cast<Descriptor*>(descriptor);
    return SUCCESS;
}
int cublasLtMatmulDescDestroy(void* descriptor) { return destroyed(descriptor); }
int cublasLtMatrixLayoutDestroy(void* descriptor) { return destroyed(descriptor); }
int cublasLtMatmulPreferenceDestroy(void* descriptor) { return destroyed(descriptor); }
int cublasLtMatmulDescSetAttribute(void* descriptor, int attribute, const void* value, size_t size) {
    auto* operation = static_cast<Descriptor*>(descriptor);
    if (operation->kind != Descriptor::OPERATION || size != 4) return INVALID_VALUE;
    const int number = *static_cast<const int*>(value);
    switch (attribute) {
        case 2: operation->pointer_mode = number; return SUCCESS;
        case 3: operation->transposed_a = number; return SUCCESS;
        case 4: operation->transposed_b = number; return SUCCESS;
        default: return INVALID_VALUE;
    }
}
int cublasLtMatmulPreferenceSetAttribute(void* descriptor, int attribute, const void* value, size_t size) {
    auto* preference = static_cast<Descriptor*>(descriptor);
    if (preference->kind != Descriptor::PREFERENCE) return INVALID_VALUE;
    if (attribute == 1 && size == 8) {
        preference->workspace = *static_cast<const uint64_t*>(value);
    } else if (attribute >= 5 && attribute <= 8 && size == 4) {
        preference->alignments[attribute - 5] = *static_cast<const uint32_t*>(value);
    } else {
        return INVALID_VALUE;
    }
    return SUCCESS;
}
int cublasLtMatmulDescGetAttribute() { return NOT_SUPPORTED; }
int cublasLtMatrixLayoutGetAttribute() { return NOT_SUPPORTED; }
int cublasLtMatmulPreferenceGetAttribute() { return NOT_SUPPORTED; }
int cublasLtMatmulAlgoGetHeuristic(void*, void* operation, void* A, void* B, void* C, void* D, void* preference, int,
                                   void* results, int* found) {
    *found = 0;
    if (static_cast<Descriptor*>(operation)->kind != Descriptor::OPERATION) return INVALID_VALUE;
    if (static_cast<Descriptor*>(preference)->kind != Descriptor::PREFERENCE) return INVALID_VALUE;
    for (void* matrix : {A, B, C, D}) {
        auto* layout = static_cast<Descriptor*>(matrix);
        if (layout->kind != Descriptor::LAYOUT || layout->ld < int64_t(layout->rows)) return INVALID_VALUE;
    }
    const size_t size = 96, workspace = 1024, at = 64;  // of cublasLtMatmulHeuristicResult_t: {algo, workspaceSize, ...}
    std::memset(results, 0, size);
    std::memcpy(static_cast<char*>(results) + at, &workspace, sizeof workspace);
    *found = 1;
    return SUCCESS;
}
int cublasLtMatmul(void*, void* operation, const void* alpha, const void* A, void* a_layout, const void* B, void* b_layout,
                   const void* beta, const void* C, void*, void* D, void* d_layout, const void*, void*, size_t,
                   cudaStream_t stream) {
    LOCKED;
    auto *op = static_cast<Descriptor*>(operation), *a = static_cast<Descriptor*>(a_layout);
    auto *b = static_cast<Descriptor*>(b_layout), *d = static_cast<Descriptor*>(d_layout);
    const bool ta = op->transposed_a, tb = op->transposed_b;
    const uint64_t m = d->rows, n = d->columns, k = ta ? a->rows : a->columns;
    log("lt matmul " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k));
    if ((ta ? a->columns : a->rows) != m || (tb ? b->rows : b->columns) != n || (tb ? b->columns : b->rows) != k) {
        std::fprintf(stderr, "emulated card: the shapes of cublasLtMatmul do not fit\n");
        return INVALID_VALUE;
    }
    for (const void* address : {alpha, beta, A, B, static_cast<const void*>(D)})
        if (!is_device_memory(address) || op->pointer_mode != POINTER_MODE_DEVICE) {
            std::fprintf(stderr, "emulated card: an operand of cublasLtMatmul is not on the card\n");
            return INVALID_VALUE;
        }
    const Matrix ma{ta, long(a->ld)}, mb{tb, long(b->ld)};
    const long ldd = d->ld;
    auto run = [=](auto one, auto element, auto read) {
        using T = decltype(one);
        using Element = decltype(element);
        enqueue(stream_of(stream), [=] {
            product<T, Element>(ma, mb, m, n, k, *static_cast<const T*>(alpha), static_cast<const Element*>(A),
                                static_cast<const Element*>(B), *static_cast<const T*>(beta), static_cast<const T*>(C),
                                static_cast<T*>(D), ldd, read);
        });
    };
    if (d->type == FLOAT64) run(1.0, 1.0, [](double x) { return x; });
    else if (a->type == BFLOAT16) run(1.0f, uint16_t(0), from_bfloat16);
    else if (op->compute == COMPUTE_FAST_TF32) run(1.0f, 1.0f, as_tf32);
    else run(1.0f, 1.0f, [](float x) { return x; });
    return SUCCESS;
}
}
