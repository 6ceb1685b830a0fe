#include "emulated_runtime.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "emulated_state.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

using namespace emulated;

namespace {

constexpr std::size_t kAlignment = 256;

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = device().count;
  return device().count == 0 ? done(cudaErrorInsufficientDriver) : cudaSuccess;
}

cudaError_t cudaGetDevice(int* index) {
  if (fails()) return done(cudaErrorUnknown);
  *index = current_device();
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int index) {
  if (fails()) return done(cudaErrorUnknown);
  if (index < 0 || index >= device().count) return done(cudaErrorInvalidDevice);
  current() = &device().contexts.try_emplace(index, CUctx_st{index}).first->second;
  return cudaSuccess;
}

cudaError_t cudaInitDevice(int, unsigned, unsigned) {
  return fails() ? done(cudaErrorDevicesUnavailable) : cudaSuccess;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  *context = current();
  return CUDA_SUCCESS;
}

CUresult cuCtxSetCurrent(CUcontext context) {
  current() = context;
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
  for (const auto& [memory, block] : device().blocks) {
    const auto* start = static_cast<const std::byte*>(memory);
    if (address < start || address >= start + block.bytes) continue;
    attributes->type = cudaMemoryTypeDevice;
    attributes->device = block.device;
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
  here.blocks.emplace(*memory, Block{bytes, current_device()});
  here.used += bytes;
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  if (memory == nullptr) return cudaSuccess;
  Device& here = device();
  const auto block = here.blocks.find(memory);
  if (block == here.blocks.end()) return done(cudaErrorInvalidValue);
#if defined(__SANITIZE_ADDRESS__)
  __asan_unpoison_memory_region(memory, block->second.bytes);
#endif
  here.used -= block->second.bytes;
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

cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, cudaStreamLegacy);
  return status == cudaSuccess ? wait([] { return device().legacy.items.empty(); }) : status;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* argument) {
  if (fails()) return done(cudaErrorLaunchFailure);
  return put(stream, [=] { function(argument); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (fails()) return done(cudaErrorUnknown);
  *stream = new CUstream_st{current_device()};
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
  return wait([items = &resolve(stream)->items] { return items->empty(); });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (fails()) return done(cudaErrorInvalidResourceHandle);
  if (event->recorded > 0) resolve(stream)->items.push_back({{}, device().events.at(event), event->recorded});
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  if (fails()) return done(cudaErrorUnknown);
  const auto made = std::make_shared<CUevent_st>(CUevent_st{current_device()});
  device().events.emplace(*event = made.get(), made);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  device().events.erase(event);  // it lives on in the work that knows it
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (fails()) return done(cudaErrorInvalidResourceHandle);
  if (resolve(stream) == stream && stream->device != event->device) return done(cudaErrorInvalidResourceHandle);
  const std::uint64_t recording = ++event->recorded;
  return put(stream, [event = device().events.at(event), recording] { event->reached = recording; });
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
