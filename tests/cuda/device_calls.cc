/// For devices.py: memory and work of a device, emulated or real. Errors are returned as CUDA's numbers, 0 for none.

#include <cuda_runtime_api.h>

#include <cstddef>

extern "C" {

using Callback = void (*)(void*);

/// Has a stream call `callback(argument)` when its turn comes.
int device_call(CUstream_st* stream, Callback callback, void* argument) {
  return cudaLaunchHostFunc(stream, callback, argument);
}

int device_copy(CUstream_st* stream, void* to, const void* from, std::size_t bytes) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream);
}

/// A copy of `bytes` bytes in device memory; null where that fails.
void* device_upload(const void* from, std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) != cudaSuccess) return nullptr;
  // From memory that is not pinned, the copy may return before the last bytes are there.
  if (cudaMemcpy(memory, from, bytes, cudaMemcpyHostToDevice) == cudaSuccess &&
      cudaStreamSynchronize(cudaStreamLegacy) == cudaSuccess) {
    return memory;
  }
  cudaFree(memory);
  return nullptr;
}

int device_free(void* memory) { return cudaFree(memory); }

/// Host memory that the device copies from and to; null where there is none.
void* device_pin(std::size_t bytes) {
  void* memory = nullptr;
  return cudaHostAlloc(&memory, bytes, cudaHostAllocDefault) == cudaSuccess ? memory : nullptr;
}

int device_unpin(void* memory) { return cudaFreeHost(memory); }

/// A stream that the default stream does not wait for; null where there is none.
void* device_make_stream() {
  cudaStream_t stream = nullptr;
  return cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess ? stream : nullptr;
}

int device_end_stream(CUstream_st* stream) { return cudaStreamDestroy(stream); }

/// Has a stream wait for what is in another one by now.
int device_let_wait(CUstream_st* stream, CUstream_st* other) {
  cudaEvent_t event = nullptr;
  if (const cudaError_t status = cudaEventCreateWithFlags(&event, cudaEventDisableTiming)) return status;
  cudaError_t status = cudaEventRecord(event, other);
  if (status == cudaSuccess) status = cudaStreamWaitEvent(stream, event, 0);
  cudaEventDestroy(event);
  return status;
}

}  // extern "C"
