// The CUDA driver: a "machine code" is the path of a library that g++ made of a kernel's source (device.h, plugin.py).
#include <dlfcn.h>

#include <cstdio>
#include <cstring>

#include "streams.h"

namespace {

const char MARK[] = "EMULATED:";

// What bind_NAME of a kernel's library gives for the arguments of a launch: called with the grid and the block.
using Bound = std::function<void(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned)>;

struct Kernel {
    Bound* (*bind)(void**);
    std::string name;
};

}  // namespace

using namespace card;

extern "C" {

CUresult cuGetErrorName(CUresult error, const char** name) {
    static thread_local char text[40];
    std::snprintf(text, sizeof text, "CUDA_ERROR_%d", static_cast<int>(error));
    *name = text;
    return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** text) {
    *text = "of the emulated card";
    return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = reinterpret_cast<CUcontext>(1);
    return CUDA_SUCCESS;
}
CUresult cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    LOCKED;
    const char* text = static_cast<const char*>(image);
    if (std::strncmp(text, MARK, sizeof MARK - 1)) {
        std::fprintf(stderr, "emulated card: the module was not compiled for it\n");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    void* library = dlopen(text + sizeof MARK - 1, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        std::fprintf(stderr, "emulated card: %s\n", dlerror());
        return CUDA_ERROR_INVALID_IMAGE;
    }
    *module = reinterpret_cast<CUmodule>(library);
    log("module load");
    return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    void* bind = dlsym(reinterpret_cast<void*>(module), (std::string("bind_") + name).c_str());
    if (!bind) return CUDA_ERROR_NOT_FOUND;
    *function = reinterpret_cast<CUfunction>(new Kernel{reinterpret_cast<Bound* (*)(void**)>(bind), name});
    return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                        unsigned, CUstream stream, void** arguments, void**) {
    LOCKED;
    auto* kernel = reinterpret_cast<Kernel*>(function);
    auto text = [](unsigned x, unsigned y, unsigned z) {
        return std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z);
    };
    log("launch " + kernel->name + " <" + text(gx, gy, gz) + "|" + text(bx, by, bz) + ">");
    const bool empty = !gx || !gy || !gz || !bx || !by || !bz;
    if (empty || gx > 2147483647u || gy > 65535 || gz > 65535 || bx * by * bz > 1024 || bz > 64)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_stream(reinterpret_cast<cudaStream_t>(stream))) return CUDA_ERROR_INVALID_HANDLE;
    std::shared_ptr<Bound> bound(kernel->bind(arguments));
    enqueue(stream_of(reinterpret_cast<cudaStream_t>(stream)), [=] { (*bound)(gx, gy, gz, bx, by, bz); });
    return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int* value, CUfunction_attribute, CUfunction) {
    *value = 1024;
    return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction, CUfunction_attribute, int) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int, size_t) {
    *blocks = 2;
    return CUDA_SUCCESS;
}
}
