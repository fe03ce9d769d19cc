// What the parts of the emulated card share: streams as queues of operations, memory with owners, a log of calls.
#pragma once
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace card {

struct Stream;

// A copy, a launch or a product: what a card does in its own time.
struct Operation {
    std::function<void()> work;
    bool done = false;
    std::vector<std::shared_ptr<Operation>> after;
    Stream* stream = nullptr;
};

struct Stream {
    bool is_default = false;   // CUDA's legacy default stream of a device
    bool nonblocking = false;  // does not wait for the default stream
    int device = 0;
    std::deque<std::shared_ptr<Operation>> queue;
    std::shared_ptr<Operation> last;
    std::vector<std::shared_ptr<Operation>> waits_for;  // events, before the next operation
    bool capturing = false;
    bool capture_failed = false;
    std::vector<std::function<void()>> captured;
};

extern std::recursive_mutex mutex;
extern thread_local int current_device;

inline const char* setting(const char* name) { return std::getenv(name); }
inline bool is_set(const char* name) {
    const char* value = setting(name);
    return value && *value == '1';
}

// One entry of the log, which tests read: "launch NAME <grid|block>", "memcpy H2D 40", "sync stream", ...
void log(const std::string& entry);

// The stream of a handle; CUDA's handles 0, 1 and 2 are the default stream of the current device.
Stream* stream_of(cudaStream_t handle);
bool is_stream(cudaStream_t handle);

// Put an operation at the end of a stream. It runs at once, or where EMULATED_LAZY=1 as late as the rules of CUDA allow:
// what reads a result without waiting for it then reads what was there before.
void enqueue(Stream* stream, std::function<void()> work);

bool is_device_memory(const void* address);

}  // namespace card

#define LOCKED std::lock_guard<std::recursive_mutex> locked_here(card::mutex)
