#include "cuda/device.h"

namespace btnet::cuda {

void check(cudaError_t status, std::string_view what) {
  if (status == cudaSuccess) return;
  // Errors that do not break the context are reported by the next call, too, unless they are fetched.
  static_cast<void>(cudaGetLastError());
  const std::string text =
      std::string(what) + " failed: " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(text);
  throw Error(text);
}

void check_device(int device) {
  const std::string name = "device 'cuda:" + std::to_string(device) + "' is not available: ";
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    throw BackendUnavailable(name + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ", error " +
                             std::to_string(static_cast<int>(status)) + ")");
  }
  if (device < 0 || device >= count) {
    throw BackendUnavailable(name + "this machine has " + std::to_string(count) + " CUDA devices");
  }
}

DeviceInfo describe_device(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "asking for the properties of a CUDA device");
  return {properties.name, properties.major, properties.minor};
}

int device_of(const void* address) {
  cudaPointerAttributes attributes{};
  check(cudaPointerGetAttributes(&attributes, address), "asking whose memory an address is in");
  const bool on_device = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return on_device ? attributes.device : -1;
}

DeviceScope::DeviceScope(int device) {
  static_cast<void>(cudaGetLastError());  // of a destructor's call, perhaps: a launch must not be taken for its culprit
  check(cudaGetDevice(&before_), "asking for the current CUDA device");
  check(cudaSetDevice(device), "using CUDA device " + std::to_string(device));
}

DeviceScope::~DeviceScope() { cudaSetDevice(before_); }

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
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "beginning to record a graph");
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
