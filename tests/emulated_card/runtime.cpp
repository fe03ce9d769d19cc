// The CUDA runtime on host memory: devices, memory, streams, events, graphs.
//
// Memory is filled with 0xFF as it is allocated (a NaN) and with 0xEE as it is freed, so that neither is mistaken for data.
#include <cstdio>
#include <cstring>
#include <set>

#include "streams.h"

namespace card {

std::recursive_mutex mutex;
thread_local int current_device = 0;

static thread_local int last_error = 0;
static std::vector<std::string> entries;
static std::set<Stream*> streams;
static std::map<int, Stream*> default_streams;
static std::map<char*, size_t> device_memory, pinned_memory;
static size_t allocated = 0;

void log(const std::string& entry) { entries.push_back(entry); }

static int device_count() {
    const char* value = setting("EMULATED_DEVICES");
    return value ? std::atoi(value) : 1;
}

static size_t memory_size() {
    const char* value = setting("EMULATED_MEMORY");
    return value ? std::strtoull(value, nullptr, 10) : size_t(141) << 30;
}

static cudaError_t result(int code) {
    if (code) last_error = code;
    return static_cast<cudaError_t>(code);
}

static bool holds(const std::map<char*, size_t>& memory, const void* address) {
    auto next = memory.upper_bound(static_cast<char*>(const_cast<void*>(address)));
    if (next == memory.begin()) return false;
    auto [start, size] = *--next;
    return address < start + size || address == start;
}

bool is_device_memory(const void* address) { return holds(device_memory, address); }

static Stream* default_stream(int device) {
    Stream*& stream = default_streams[device];
    if (!stream) {
        stream = new Stream;
        stream->is_default = true;
        stream->device = device;
        streams.insert(stream);
    }
    return stream;
}

static bool is_default(cudaStream_t handle) { return reinterpret_cast<size_t>(handle) <= 2; }

Stream* stream_of(cudaStream_t handle) {
    return is_default(handle) ? default_stream(current_device) : reinterpret_cast<Stream*>(handle);
}

bool is_stream(cudaStream_t handle) { return is_default(handle) || streams.count(reinterpret_cast<Stream*>(handle)); }

// Run the queue of its stream up to an operation, and before each one what it has to wait for.
static void run_to(std::shared_ptr<Operation> wanted) {
    if (!wanted || wanted->done) return;
    auto& queue = wanted->stream->queue;
    while (!wanted->done) {
        auto next = queue.front();
        auto after = std::move(next->after);
        for (auto& earlier : after) run_to(earlier);
        if (next->done) continue;  // run on the way, which took it out of the queue
        next->done = true;
        queue.pop_front();
        next->work();
    }
}

static void synchronize(Stream* stream) {
    run_to(stream->last);
    if (!stream->is_default) return;
    for (Stream* other : streams)
        if (!other->nonblocking && other->device == stream->device) run_to(other->last);
}

// Later streams first, which is the order that a program is least likely to expect.
static void synchronize_all() {
    for (auto it = streams.rbegin(); it != streams.rend(); ++it) run_to((*it)->last);
}

static bool any_capture() {
    for (Stream* stream : streams)
        if (stream->capturing) return true;
    return false;
}

void enqueue(Stream* stream, std::function<void()> work) {
    if (stream->capturing) {
        stream->captured.push_back(std::move(work));
        return;
    }
    auto operation = std::make_shared<Operation>();
    operation->work = std::move(work);
    operation->stream = stream;
    operation->after = std::move(stream->waits_for);
    stream->waits_for.clear();
    auto wait_for = [&](Stream* other) {
        if (other->last && !other->last->done) operation->after.push_back(other->last);
    };
    if (stream->is_default) {
        for (Stream* other : streams)
            if (other != stream && !other->nonblocking && other->device == stream->device) wait_for(other);
    } else if (!stream->nonblocking) {
        wait_for(default_stream(stream->device));
    }
    stream->queue.push_back(operation);
    stream->last = operation;
    static const bool lazy = is_set("EMULATED_LAZY");
    if (!lazy) run_to(operation);
}

struct Event {
    std::shared_ptr<Operation> recorded;
};

struct Graph {
    std::vector<std::function<void()>> work;
};

static const char* kind_of(int kind) {
    const char* kinds[] = {"H2H", "H2D", "D2H", "D2D"};
    return kind < 4 ? kinds[kind] : "any";
}

static cudaError_t copy(void* to, const void* from, size_t size, int kind, Stream* stream, bool async) {
    LOCKED;
    const bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    const bool pageable = (up && !holds(pinned_memory, from)) || (down && !holds(pinned_memory, to));
    log(std::string("memcpy ") + kind_of(kind) + (pageable ? " pageable " : " ") + std::to_string(size));
    const bool to_device = up || kind == cudaMemcpyDeviceToDevice, from_device = down || kind == cudaMemcpyDeviceToDevice;
    if (size && ((to_device && !is_device_memory(to)) || (from_device && !is_device_memory(from)))) {
        std::fprintf(stderr, "emulated card: memcpy %s from %p to %p is not between such memory\n", kind_of(kind), from, to);
        return result(cudaErrorInvalidValue);
    }
    if (stream->capturing && (pageable || !async)) {
        stream->capture_failed = true;
        return result(cudaErrorStreamCaptureUnsupported);
    }
    if (up && pageable) {  // CUDA copies it aside before it returns
        auto aside = std::make_shared<std::string>(static_cast<const char*>(from), size);
        enqueue(stream, [=] { std::memcpy(to, aside->data(), size); });
    } else {
        enqueue(stream, [=] { std::memcpy(to, from, size); });
    }
    if ((down && pageable) || !async) synchronize(stream);
    return cudaSuccess;
}

static cudaError_t allocate(void** pointer, size_t size, std::map<char*, size_t>& memory) {
    char* start = static_cast<char*>(std::aligned_alloc(512, (size + 1023) / 512 * 512));
    if (!start) return result(cudaErrorMemoryAllocation);
    std::memset(start, 0xFF, size);
    memory[start] = size;
    *pointer = start;
    return cudaSuccess;
}

}  // namespace card

using namespace card;

extern "C" {

// -- for tests --------------------------------------------------------------------------------------------------------

void card_clear_log() {
    LOCKED;
    entries.clear();
}
int card_log_length() { return static_cast<int>(entries.size()); }
const char* card_log_entry(int i) { return entries[i].c_str(); }

// -- errors, devices --------------------------------------------------------------------------------------------------

const char* cudaGetErrorName(cudaError_t error) {
    static thread_local char name[64];
    switch (error) {
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
        case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
        case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
        case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
        case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
        default: std::snprintf(name, sizeof name, "error %d", static_cast<int>(error)); return name;
    }
}
const char* cudaGetErrorString(cudaError_t) { return "of the emulated card"; }
cudaError_t cudaGetLastError() {
    int code = last_error;
    last_error = 0;
    return static_cast<cudaError_t>(code);
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
    *device = current_device;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    if (device < 0 || device >= device_count()) return result(cudaErrorInvalidDevice);
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
    *count = device_count();
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrComputeCapabilityMajor: *value = 9; break;
        case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
        case cudaDevAttrAsyncEngineCount: *value = 2; break;
        case cudaDevAttrWarpSize: *value = 32; break;
        case cudaDevAttrMultiProcessorCount: *value = 132; break;
        case cudaDevAttrMaxThreadsPerBlock: *value = 1024; break;
        default: *value = 0;
    }
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties_v2(cudaDeviceProp* properties, int) {
    std::memset(properties, 0, sizeof *properties);
    std::strcpy(properties->name, "emulated card");
    properties->totalGlobalMem = memory_size();
    properties->major = 9;
    properties->warpSize = 32;
    properties->multiProcessorCount = 132;
    properties->maxThreadsPerBlock = 1024;
    properties->sharedMemPerBlock = 49152;
    properties->maxGridSize[0] = 2147483647;
    properties->maxGridSize[1] = properties->maxGridSize[2] = 65535;
    return cudaSuccess;
}
cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
    *can = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() {
    LOCKED;
    log("sync device");
    if (any_capture()) return result(cudaErrorStreamCaptureUnsupported);
    synchronize_all();
    return cudaSuccess;
}

// -- memory -----------------------------------------------------------------------------------------------------------

cudaError_t cudaMalloc(void** pointer, size_t size) {
    LOCKED;
    log("malloc " + std::to_string(size));
    if (allocated + size > memory_size()) return result(cudaErrorMemoryAllocation);
    allocated += size;
    return allocate(pointer, size, device_memory);
}
cudaError_t cudaFree(void* pointer) {
    LOCKED;
    if (!pointer) return cudaSuccess;
    if (any_capture()) return result(cudaErrorStreamCaptureUnsupported);
    synchronize_all();
    auto found = device_memory.find(static_cast<char*>(pointer));
    if (found == device_memory.end()) return result(cudaErrorInvalidValue);
    log("free");
    std::memset(pointer, 0xEE, found->second);
    allocated -= found->second;
    device_memory.erase(found);
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
    LOCKED;
    log("hostalloc " + std::to_string(size));
    return allocate(pointer, size, pinned_memory);
}
cudaError_t cudaFreeHost(void* pointer) {
    LOCKED;
    synchronize_all();
    pinned_memory.erase(static_cast<char*>(pointer));
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *total = memory_size();
    *available = *total - allocated;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
    LOCKED;
    std::memset(attributes, 0, sizeof *attributes);
    attributes->type = is_device_memory(pointer)           ? cudaMemoryTypeDevice
                       : holds(pinned_memory, pointer) ? cudaMemoryTypeHost
                                                       : cudaMemoryTypeUnregistered;
    if (attributes->type != cudaMemoryTypeUnregistered) attributes->devicePointer = const_cast<void*>(pointer);
    if (attributes->type == cudaMemoryTypeHost) attributes->hostPointer = const_cast<void*>(pointer);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
    return copy(to, from, size, kind, default_stream(current_device), false);
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    LOCKED;
    if (!is_stream(stream)) return result(cudaErrorInvalidResourceHandle);
    return copy(to, from, size, kind, stream_of(stream), true);
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, cudaStream_t stream) {
    return copy(to, from, size, cudaMemcpyDeviceToDevice, stream_of(stream), true);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t size, cudaStream_t stream) {
    LOCKED;
    log("memset " + std::to_string(size));
    enqueue(stream_of(stream), [=] { std::memset(to, value, size); });
    return cudaSuccess;
}
cudaError_t cudaMemset(void* to, int value, size_t size) { return cudaMemsetAsync(to, value, size, nullptr); }

// -- streams ----------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* handle, unsigned flags, int) {
    LOCKED;
    auto* stream = new Stream;
    stream->nonblocking = flags & cudaStreamNonBlocking;
    stream->device = current_device;
    streams.insert(stream);
    *handle = reinterpret_cast<cudaStream_t>(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* handle, unsigned flags) {
    return cudaStreamCreateWithPriority(handle, flags, 0);
}
cudaError_t cudaStreamCreate(cudaStream_t* handle) { return cudaStreamCreateWithPriority(handle, 0, 0); }
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    LOCKED;
    auto* stream = reinterpret_cast<Stream*>(handle);
    if (!streams.count(stream)) return result(cudaErrorInvalidResourceHandle);
    run_to(stream->last);
    streams.erase(stream);  // not deleted: operations of others may wait for its last one
    return cudaSuccess;
}
cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    *flags = stream_of(stream)->nonblocking;
    return cudaSuccess;
}
cudaError_t cudaStreamGetPriority(cudaStream_t, int* priority) {
    *priority = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
    LOCKED;
    log("sync stream");
    if (!is_stream(handle)) return result(cudaErrorInvalidResourceHandle);
    Stream* stream = stream_of(handle);
    if (stream->capturing) {
        stream->capture_failed = true;
        return result(cudaErrorStreamCaptureUnsupported);
    }
    synchronize(stream);
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
    LOCKED;
    Stream* stream = stream_of(handle);
    return !stream->last || stream->last->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t handle, unsigned) {
    LOCKED;
    auto operation = reinterpret_cast<Event*>(handle)->recorded;
    if (operation && !operation->done) stream_of(stream)->waits_for.push_back(operation);
    return cudaSuccess;
}

// -- events -----------------------------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* handle, unsigned) {
    *handle = reinterpret_cast<cudaEvent_t>(new Event);
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* handle) { return cudaEventCreateWithFlags(handle, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t handle) {
    delete reinterpret_cast<Event*>(handle);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t handle, cudaStream_t in) {
    LOCKED;
    if (!is_stream(in)) return result(cudaErrorInvalidResourceHandle);
    Stream* stream = stream_of(in);
    if (stream->capturing) return cudaSuccess;
    enqueue(stream, [] {});
    reinterpret_cast<Event*>(handle)->recorded = stream->last;
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
    LOCKED;
    log("sync event");
    run_to(reinterpret_cast<Event*>(handle)->recorded);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
    LOCKED;
    auto& operation = reinterpret_cast<Event*>(handle)->recorded;
    return !operation || operation->done ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
    *milliseconds = 1;  // there is no time on this card
    return cudaSuccess;
}

// -- capture and graphs -----------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
    LOCKED;
    Stream* stream = stream_of(handle);
    if (stream->is_default) return result(cudaErrorStreamCaptureUnsupported);
    stream->capturing = true;
    stream->capture_failed = false;
    stream->captured.clear();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
    LOCKED;
    Stream* stream = stream_of(handle);
    stream->capturing = false;
    *graph = nullptr;
    if (stream->capture_failed) return result(cudaErrorStreamCaptureInvalidated);
    *graph = reinterpret_cast<cudaGraph_t>(new Graph{std::move(stream->captured)});
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
    LOCKED;
    if (!is_stream(handle)) return result(cudaErrorInvalidResourceHandle);
    *status = stream_of(handle)->capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* handle, cudaGraph_t graph, unsigned long long) {
    *handle = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph)));
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t handle, cudaStream_t stream) {
    LOCKED;
    auto work = reinterpret_cast<Graph*>(handle)->work;
    log("graph launch " + std::to_string(work.size()));
    enqueue(stream_of(stream), [work] {
        for (auto& operation : work) operation();
    });
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
    delete reinterpret_cast<Graph*>(graph);
    return cudaSuccess;
}
}
