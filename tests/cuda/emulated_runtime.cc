#include "emulated_runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <new>
#include <random>
#include <set>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

// The types that CUDA declares and never defines are defined here.
struct CUevent_st {
  std::uint64_t recorded = 0, reached = 0;
};

struct CUctx_st {
  int device;
};

struct CUstream_st {
  struct Item {
    std::function<void()> work;
    const CUevent_st* awaited = nullptr;  // with `recording`: runs only once the event has got there
    std::uint64_t recording = 0;
  };
  std::deque<Item> items;
  bool capturing = false;
  std::vector<std::function<void()>> captured;
};

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};

struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace {

constexpr std::size_t kAlignment = 256;

struct Device {
  int count = 1, major = 9;
  std::map<int, CUctx_st> contexts;  // by device
  CUcontext current = nullptr;
  bool recordable = true;
  std::size_t capacity = std::size_t{1} << 40, used = 0;
  std::map<void*, std::size_t> blocks;  // device memory
  std::set<void*> pinned;
  std::vector<CUstream_st*> streams;  // in the order they were made
  std::set<CUevent_st*> events;
  std::size_t graphs = 0;
  std::size_t calls = 0, fail_at = 0;
  std::mt19937_64 random{0};
  cudaError_t last = cudaSuccess;    // what cudaGetLastError gives
  cudaError_t broken = cudaSuccess;  // what the next wait gives
  std::string failure;
};

Device& device() {
  static Device instance;
  return instance;
}

/// Opens device memory for as long as work of the device runs.
class OpenMemory {
 public:
  OpenMemory() { each(false); }
  ~OpenMemory() { each(true); }
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;

 private:
  static void each([[maybe_unused]] bool close) {
#if defined(__SANITIZE_ADDRESS__)
    for (const auto& [memory, bytes] : device().blocks) {
      if (close) {
        __asan_poison_memory_region(memory, bytes);
      } else {
        __asan_unpoison_memory_region(memory, bytes);
      }
    }
#endif
  }
};

cudaError_t done(cudaError_t status) {
  if (status != cudaSuccess) device().last = status;
  return status;
}

/// Counts a call, and says whether it is the one that is to fail.
bool fails() {
  ++device().calls;
  return device().calls == device().fail_at;
}

bool runnable(const CUstream_st& stream) {
  if (stream.items.empty()) return false;
  const CUstream_st::Item& item = stream.items.front();
  return item.awaited == nullptr || item.awaited->reached >= item.recording;
}

void run_next(CUstream_st& stream) {
  const CUstream_st::Item item = std::move(stream.items.front());
  stream.items.pop_front();
  if (!item.work) return;
  try {
    const OpenMemory open;
    item.work();
  } catch (const std::exception& error) {
    device().failure = error.what();
    device().broken = cudaErrorLaunchFailure;
  }
}

/// Lets the streams take turns until `reached`; false where no stream can go on.
bool advance(const std::function<bool()>& reached) {
  while (!reached()) {
    std::vector<CUstream_st*> ready;
    for (CUstream_st* stream : device().streams) {
      if (runnable(*stream)) ready.push_back(stream);
    }
    if (ready.empty()) return false;
    run_next(*ready[device().random() % ready.size()]);
  }
  return true;
}

cudaError_t wait(const std::function<bool()>& reached) {
  if (!advance(reached)) return done(cudaErrorLaunchTimeout);
  return done(std::exchange(device().broken, cudaSuccess));
}

bool idle() {
  return std::all_of(device().streams.begin(), device().streams.end(),
                     [](const CUstream_st* stream) { return stream->items.empty(); });
}

cudaError_t put(cudaStream_t stream, std::function<void()> work) {
  if (stream->capturing) {
    stream->captured.push_back(std::move(work));
  } else {
    stream->items.push_back({std::move(work)});
  }
  return cudaSuccess;
}

}  // namespace

namespace emulated {

bool Live::operator==(const Live& other) const {
  return std::tie(device_blocks, pinned_blocks, streams, events, graphs) ==
         std::tie(other.device_blocks, other.pinned_blocks, other.streams, other.events, other.graphs);
}

Live live() {
  const Device& here = device();
  return {here.blocks.size(), here.pinned.size(), here.streams.size(), here.events.size(), here.graphs};
}

void set_seed(std::uint64_t seed) { device().random.seed(seed); }
void set_devices(int count) { device().count = count; }
void set_capability(int major) { device().major = major; }
void set_recordable(bool recordable) { device().recordable = recordable; }
void set_capacity(std::size_t bytes) { device().capacity = bytes; }
std::size_t calls() { return device().calls; }

void fail_at(std::size_t nth) {
  device().calls = 0;
  device().fail_at = nth;
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
  if (fails()) {
    done(cudaErrorLaunchOutOfResources);
    return;
  }
  put(stream, std::move(work));
}

std::string last_failure() { return device().failure; }

}  // namespace emulated

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device().count;
  return device().count == 0 ? done(cudaErrorInsufficientDriver) : cudaSuccess;
}

cudaError_t cudaGetDevice(int* index) {
  if (fails()) return done(cudaErrorUnknown);
  *index = device().current == nullptr ? 0 : device().current->device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  if (fails()) return done(cudaErrorUnknown);
  if (index < 0 || index >= device().count) return done(cudaErrorInvalidDevice);
  device().current = &device().contexts.try_emplace(index, CUctx_st{index}).first->second;
  return cudaSuccess;
}

cudaError_t cudaInitDevice(int, unsigned, unsigned) {
  return fails() ? done(cudaErrorDevicesUnavailable) : cudaSuccess;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = device().current;
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  device().current = context;
  return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool get = std::strcmp(name, "cuCtxGetCurrent") == 0;
  *function = get ? reinterpret_cast<void*>(&cuCtxGetCurrent) : reinterpret_cast<void*>(&cuCtxSetCurrent);
  *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  if (fails()) return done(cudaErrorUnknown);
  *properties = {};
  std::strcpy(properties->name, "emulated");
  properties->major = device().major;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  if (fails()) return done(cudaErrorUnknown);
  *attributes = {};
  for (const auto& [memory, bytes] : device().blocks) {
    const auto* start = static_cast<const std::byte*>(memory);
    if (address >= start && address < start + bytes) attributes->type = cudaMemoryTypeDevice;
  }
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  Device& here = device();
  if (fails() || here.used + bytes > here.capacity) return done(cudaErrorMemoryAllocation);
  *memory = ::operator new(bytes, std::align_val_t{kAlignment});
  std::memset(*memory, 0xff, bytes);  // NaN, in float32 and in half
#if defined(__SANITIZE_ADDRESS__)
  __asan_poison_memory_region(*memory, bytes);
#endif
  here.blocks.emplace(*memory, bytes);
  here.used += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  advance(idle);
  Device& here = device();
  const auto block = here.blocks.find(memory);
  if (block == here.blocks.end()) return done(cudaErrorInvalidValue);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(memory, block->second);
#endif
  here.used -= block->second;
  here.blocks.erase(block);
  ::operator delete(memory, std::align_val_t{kAlignment});
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  if (fails()) return done(cudaErrorMemoryAllocation);
  *memory = ::operator new(bytes, std::align_val_t{kAlignment});
  device().pinned.insert(*memory);
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  advance(idle);
  if (device().pinned.erase(memory) == 0) return done(cudaErrorInvalidValue);
  ::operator delete(memory, std::align_val_t{kAlignment});
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (fails()) return done(cudaErrorInvalidValue);
  return put(stream, [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
  if (fails()) return done(cudaErrorInvalidValue);
  advance(idle);
  const OpenMemory open;
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  if (fails()) return done(cudaErrorLaunchFailure);
  return put(stream, [=] { function(argument); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (fails()) return done(cudaErrorUnknown);
  *stream = new CUstream_st;
  device().streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  advance([stream] { return stream->items.empty(); });
  auto& streams = device().streams;
  streams.erase(std::remove(streams.begin(), streams.end(), stream), streams.end());
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (fails()) return done(cudaErrorLaunchFailure);
  if (stream == cudaStreamLegacy) return wait(idle);
  return wait([stream] { return stream->items.empty(); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (fails()) return done(cudaErrorInvalidResourceHandle);
  if (event->recorded > 0) stream->items.push_back({{}, event, event->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (fails()) return done(cudaErrorUnknown);
  *event = new CUevent_st;
  device().events.insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  advance(idle);
  device().events.erase(event);
  delete event;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (fails()) return done(cudaErrorInvalidResourceHandle);
  const std::uint64_t recording = ++event->recorded;
  return put(stream, [event, recording] { event->reached = recording; });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (fails()) return done(cudaErrorLaunchFailure);
  return wait([event, recording = event->recorded] { return event->reached >= recording; });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (fails()) return done(cudaErrorStreamCaptureUnsupported);
  stream->capturing = true;
  stream->captured.clear();
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  stream->capturing = false;
  *graph = nullptr;
  if (fails() || !device().recordable) return done(cudaErrorStreamCaptureInvalidated);
  *graph = new CUgraph_st{std::move(stream->captured)};
  ++device().graphs;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  if (fails()) return done(cudaErrorMemoryAllocation);
  *executable = new CUgraphExec_st{graph->work};
  ++device().graphs;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  if (fails()) return done(cudaErrorLaunchFailure);
  for (const auto& work : executable->work) put(stream, work);
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  --device().graphs;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  --device().graphs;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() { return std::exchange(device().last, cudaSuccess); }

const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInsufficientDriver:
      return "CUDA driver version is insufficient for CUDA runtime version";
    default:
      return "an emulated failure";
  }
}

const char* cudaGetErrorName(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    default:
      return "cudaErrorEmulated";
  }
}

}  // extern "C"
