/// What the tests of the emulated module _cuda need beside it, for ctypes.

#include <cstdint>
#include <cstring>

#include "emulated_runtime.h"

extern "C" {

using Callback = void (*)(std::int64_t);

/// Has a stream call `callback(number)` when its turn comes.
void emulated_call(CUstream_st* stream, Callback callback, std::int64_t number) {
  emulated::enqueue(stream, [=] { callback(number); });
}

void emulated_set_devices(int count) { emulated::set_devices(count); }
void emulated_set_capacity(std::size_t bytes) { emulated::set_capacity(bytes); }

std::size_t emulated_live_blocks() { return emulated::live().device_blocks; }

/// A copy of `bytes` bytes in device memory; null if there is no room.
void* emulated_upload(const void* from, std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) return nullptr;
  std::memcpy(memory, from, bytes);
  return memory;
}

void emulated_free(void* memory) { cudaFree(memory); }

}  // extern "C"
