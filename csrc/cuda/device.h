#pragma once

#include <cuda.h>  // types alone: nothing of the driver is linked
#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "btnet/error.h"

/// What the GPU path uses of the CUDA runtime, with owners that free what they hold and errors as exceptions.
namespace btnet::cuda {

/// Throws OutOfMemory, or Error for any other failure; `what` says in a few words what could not be done.
void check(cudaError_t status, std::string_view what);

struct DeviceInfo {
  std::string name;
  int major, minor;  ///< compute capability
};

/// Throws BackendUnavailable that says why (no driver, no device, an index out of range, a card that is too old) unless
/// there is such a device. Makes no context.
DeviceInfo describe_device(int device);

/// The same unless `device` can be used, also where it is taken by others, or full. Makes its context.
void check_device(int device);

constexpr int kAnyDevice = -2;

/// Index of the device whose memory an address is in; kAnyDevice for managed memory, -1 for memory of the host.
int device_of(const void* address);

/// Makes a device the current one of this thread, and at its end what was: a context, of whatever library, or none.
class DeviceScope {
 public:
  explicit DeviceScope(int device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  CUcontext before_ = nullptr;
};

struct DeviceAllocator {
  static void* allocate(std::size_t bytes);
  static void free(void* memory) noexcept;
};

/// On the host, where the device copies from and to without waiting.
struct PinnedAllocator {
  static void* allocate(std::size_t bytes);
  static void free(void* memory) noexcept;
};

/// Memory that is kept between requests and grows on demand.
template <class Allocator>
class Memory {
 public:
  /// At least `bytes`, aligned to 256; what was there is lost when it has to grow. Throws OutOfMemory, and is then
  /// empty.
  void* reserve(std::size_t bytes) {
    if (bytes > size_) {
      release();
      memory_.reset(Allocator::allocate(bytes));
      size_ = bytes;
    }
    return memory_.get();
  }

  void release() {
    memory_.reset();
    size_ = 0;
  }

  void* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(void* memory) const { Allocator::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t size_ = 0;
};

using DeviceMemory = Memory<DeviceAllocator>;
using PinnedMemory = Memory<PinnedAllocator>;

/// Owns a handle of the CUDA runtime, which `destroy` ends.
template <class Handle, cudaError_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(Owned&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Owned() {
    if (handle_ != nullptr) destroy(handle_);
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

/// A point in the work of a stream.
class Event {
 public:
  Event();
  void record(cudaStream_t stream);
  void synchronize() const;  ///< blocks until the work before it is done; throws what went wrong in it
  cudaEvent_t get() const { return event_.get(); }

 private:
  Owned<cudaEvent_t, cudaEventDestroy> event_;
};

/// Work that the device does in order. It does not wait for the legacy default stream.
class Stream {
 public:
  Stream();
  void wait(const Event& event);  ///< later work of this stream begins after the event
  cudaStream_t get() const { return stream_.get(); }

 private:
  Owned<cudaStream_t, cudaStreamDestroy> stream_;
};

/// Work of a stream that was recorded once and is launched as a whole.
class Graph {
 public:
  /// Records what `enqueue` puts into the stream, which does not run yet. Throws what `enqueue` throws, and Error where
  /// it does what cannot be recorded; the stream can be used again in either case.
  template <class Enqueue>
  static Graph record(cudaStream_t stream, const Enqueue& enqueue) {
    Capture capture(stream);
    enqueue();
    return Graph(capture.end());
  }

  void launch(cudaStream_t stream) const;

 private:
  using Recorded = Owned<cudaGraph_t, cudaGraphDestroy>;

  class Capture {
   public:
    explicit Capture(cudaStream_t stream);
    ~Capture();
    Capture(const Capture&) = delete;
    Capture& operator=(const Capture&) = delete;
    Recorded end();

   private:
    cudaStream_t stream_;
    bool running_ = true;
  };

  explicit Graph(const Recorded& recorded);

  Owned<cudaGraphExec_t, cudaGraphExecDestroy> graph_;
};

}  // namespace btnet::cuda
