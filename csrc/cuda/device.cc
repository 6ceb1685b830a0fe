#include "cuda/device.h"

#include <tuple>

namespace btnet::cuda {
namespace {

constexpr int kOldestMajor = 7, kOldestMinor = 5;  // that there is machine code or PTX for

/// A function of the driver, which is not linked, so that this is loaded where there is none.
template <class Function>
Function* driver_function(const char* name) {
  constexpr unsigned kSinceVersion = 4000;
  void* function = nullptr;
  cudaDriverEntryPointQueryResult result{};
  check(cudaGetDriverEntryPointByVersion(name, &function, kSinceVersion, cudaEnableDefault, &result),
        "looking for a function of the driver");
  if (function == nullptr) throw Error(std::string("the CUDA driver has no function ") + name);
  return reinterpret_cast<Function*>(function);
}

/// What cudaGetDevice and cudaSetDevice cannot do: leave a thread without a context, or with one of another library.
struct Contexts {
  CUresult (*get)(CUcontext*) = driver_function<CUresult(CUcontext*)>("cuCtxGetCurrent");
  CUresult (*set)(CUcontext) = driver_function<CUresult(CUcontext)>("cuCtxSetCurrent");
};

const Contexts& contexts() {
  static const Contexts functions;
  return functions;
}

std::string unavailable(int device) { return "device 'cuda:" + std::to_string(device) + "' is not available: "; }

[[noreturn]] void refuse(const std::string& device, cudaError_t status) {
  static_cast<void>(cudaGetLastError());
  throw BackendUnavailable(device + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ", error " +
                           std::to_string(static_cast<int>(status)) + ")");
}

}  // namespace

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  // Errors that do not break the context are reported by the next call, too, unless they are fetched.
  static_cast<void>(cudaGetLastError());
  const std::string text =
      std::string(what) + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(text);
  throw Error(text);
}

DeviceInfo describe_device(int device) {
  const std::string name = unavailable(device);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) refuse(name, status);
  if (device < 0 || device >= count) {
    throw BackendUnavailable(name + "this machine has " + std::to_string(count) + " CUDA devices");
  }
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "asking for the properties of a CUDA device");
  const DeviceInfo info{properties.name, properties.major, properties.minor};
  if (std::tie(info.major, info.minor) < std::tie(kOldestMajor, kOldestMinor)) {
    throw BackendUnavailable(name + "the " + info.name + " has compute capability " + std::to_string(info.major) + "." +
                             std::to_string(info.minor) + ", expected 7.5 or later");
  }
  return info;
}

void check_device(int device) {
  describe_device(device);
  // Only a context shows whether the card is taken by others, or full.
  const cudaError_t made = cudaInitDevice(device, 0, 0);
  if (made != cudaSuccess) refuse(unavailable(device), made);
}

int device_of(const void* address) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, address), "asking whose memory an address is in");
  if (attributes.type == cudaMemoryTypeManaged) return kAnyDevice;  // its device is only the one that was current once
  return attributes.type == cudaMemoryTypeDevice ? attributes.device : -1;
}

DeviceScope::DeviceScope(int device) {
  static_cast<void>(cudaGetLastError());  // of a destructor's call, perhaps: a launch must not be taken for its culprit
  if (contexts().get(&before_) != CUDA_SUCCESS) before_ = nullptr;  // before anything was initialised
  check(cudaSetDevice(device), "using CUDA device " + std::to_string(device));
}

DeviceScope::~DeviceScope() { contexts().set(before_); }

void* DeviceAllocator::allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, bytes), "taking " + std::to_string(bytes) + " bytes of device memory");
  return memory;
}

void DeviceAllocator::free(void* memory) noexcept { cudaFree(memory); }

void* PinnedAllocator::allocate(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault), "pinning " + std::to_string(bytes) + " bytes of memory");
  return memory;
}

void PinnedAllocator::free(void* memory) noexcept { cudaFreeHost(memory); }

Event::Event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  event_ = decltype(event_)(event);
}

void Event::record(cudaStream_t stream) { check(cudaEventRecord(event_.get(), stream), "recording an event"); }

void Event::synchronize() const { check(cudaEventSynchronize(event_.get()), "the work on the device"); }

Stream::Stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating a stream");
  stream_ = decltype(stream_)(stream);
}

void Stream::wait(const Event& event) {
  check(cudaStreamWaitEvent(stream_.get(), event.get(), 0), "having a stream wait");
}

Graph::Capture::Capture(cudaStream_t stream) : stream_(stream) {
  // Relaxed, since executors in Python may free something else meanwhile: whatever the garbage collector comes across.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "beginning to record a graph");
}

Graph::Capture::~Capture() {
  if (!running_) return;
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream_, &graph);
  const Recorded dropped(graph);
  static_cast<void>(cudaGetLastError());
}

Graph::Recorded Graph::Capture::end() {
  running_ = false;
  cudaGraph_t graph = nullptr;
  const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
  Recorded recorded(graph);
  check(status, "recording a graph");
  return recorded;
}

Graph::Graph(const Recorded& recorded) {
  cudaGraphExec_t graph = nullptr;
  check(cudaGraphInstantiate(&graph, recorded.get(), 0), "readying a graph");
  graph_ = decltype(graph_)(graph);
}

void Graph::launch(cudaStream_t stream) const { check(cudaGraphLaunch(graph_.get(), stream), "launching a graph"); }

}  // namespace btnet::cuda
