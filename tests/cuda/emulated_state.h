#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

/// What emulated_runtime.cc, the calls, and emulated_work.cc, what they set going, both know of the device.

// The types that CUDA declares and never defines are defined here.
struct CUevent_st {
  int device;
  std::uint64_t recorded = 0, reached = 0;
};

struct CUctx_st {
  int device;
};

struct CUstream_st {
  struct Item {
    std::function<void()> work;
    std::shared_ptr<const CUevent_st> awaited = nullptr;  // with `recording`: runs only once the event has got there
    std::uint64_t recording = 0;
  };
  int device;
  std::deque<Item> items = {};
  bool capturing = false;
  std::vector<std::function<void()>> captured = {};
};

struct CUgraph_st {
  std::vector<std::function<void()>> work;
};

struct CUgraphExec_st {
  std::vector<std::function<void()>> work;
};

namespace emulated {

struct Block {
  std::size_t bytes;
  int device;
};

/// All devices of the machine.
struct Device {
  int count = 1, major = 9;
  std::map<int, CUctx_st> contexts;  // by device
  bool recordable = true;
  std::size_t capacity = std::size_t{1} << 40, used = 0;
  std::map<void*, Block> blocks;  // device memory
  std::set<void*> pinned;
  CUstream_st legacy{0};              // the default stream; all others are made so that it does not wait for them
  std::vector<CUstream_st*> streams;  // in the order they were made
  std::map<CUevent_st*, std::shared_ptr<CUevent_st>> events;
  std::size_t graphs = 0;
  std::size_t calls = 0, fail_at = 0;
  std::mt19937_64 random{0};
  cudaError_t last = cudaSuccess;    // what cudaGetLastError gives
  cudaError_t broken = cudaSuccess;  // what the next wait gives
  std::string failure;
};

Device& device();

/// The context of the calling thread; may be null.
CUcontext& current();

/// Where the calling thread's calls go: to its context's device, or to the first one.
int current_device();

/// The stream that a caller means: its own, or the default stream.
CUstream_st* resolve(cudaStream_t stream);

/// Remembers an error for cudaGetLastError; returns `status`.
cudaError_t done(cudaError_t status);

/// Counts a call, and says whether it is the one that is to fail.
bool fails();

/// Puts work into a stream, or among what it records.
cudaError_t put(cudaStream_t stream, std::function<void()> work);

/// Opens device memory for as long as work of the device runs.
class OpenMemory {
 public:
  OpenMemory();
  ~OpenMemory();
  OpenMemory(const OpenMemory&) = delete;
  OpenMemory& operator=(const OpenMemory&) = delete;
};

/// Lets the streams take turns until `reached`; false where no stream can go on.
bool advance(const std::function<bool()>& reached);

/// The same, as an error: that of work that threw, or that no stream can go on.
cudaError_t wait(const std::function<bool()>& reached);

/// Whether no stream has anything left to do.
bool idle();

}  // namespace emulated
