#include <algorithm>
#include <random>

#include "emulated_runtime.h"
#include "emulated_state.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace emulated {
namespace {

void set_access([[maybe_unused]] bool open) {
#if defined(__SANITIZE_ADDRESS__)
  for (const auto& [memory, block] : device().blocks) {
    if (open) {
      __asan_unpoison_memory_region(memory, block.bytes);
    } else {
      __asan_poison_memory_region(memory, block.bytes);
    }
  }
#endif
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

}  // namespace

Device& device() {
  static Device instance;
  return instance;
}

CUcontext& current() {
  static thread_local CUcontext context = nullptr;
  return context;
}

int current_device() { return current() == nullptr ? 0 : current()->device; }

CUstream_st* resolve(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy ? &device().legacy : stream;
}

cudaError_t done(cudaError_t status) {
  if (status != cudaSuccess) device().last = status;
  return status;
}

bool fails() {
  ++device().calls;
  return device().calls == device().fail_at;
}

OpenMemory::OpenMemory() { set_access(true); }
OpenMemory::~OpenMemory() { set_access(false); }

bool advance(const std::function<bool()>& reached) {
  while (!reached()) {
    std::vector<CUstream_st*> all = device().streams, ready;
    all.push_back(&device().legacy);
    for (CUstream_st* stream : all) {
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
  return device().legacy.items.empty() && std::all_of(device().streams.begin(), device().streams.end(),
                                                      [](const CUstream_st* stream) { return stream->items.empty(); });
}

cudaError_t put(cudaStream_t stream, std::function<void()> work) {
  CUstream_st* to = resolve(stream);
  if (to->capturing) {
    to->captured.push_back(std::move(work));
  } else {
    to->items.push_back({std::move(work)});
  }
  return cudaSuccess;
}

bool Live::operator==(const Live& other) const {
  return std::tie(device_blocks, pinned_blocks, streams, events, graphs) ==
         std::tie(other.device_blocks, other.pinned_blocks, other.streams, other.events, other.graphs);
}

Live live() {
  const Device& here = device();
  return {here.blocks.size(), here.pinned.size(), here.streams.size(), here.events.size(), here.graphs};
}

std::size_t blocks_on(int index) {
  const auto& blocks = device().blocks;
  return std::count_if(blocks.begin(), blocks.end(), [index](const auto& it) { return it.second.device == index; });
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
  if (resolve(stream) == stream && stream->device != current_device()) {
    done(cudaErrorInvalidResourceHandle);
    return;
  }
  put(stream, std::move(work));
}

std::string last_failure() { return device().failure; }

}  // namespace emulated
