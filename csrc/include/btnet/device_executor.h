#pragma once

#include <vector>

struct CUstream_st;  // what CUDA's cudaStream_t points to; this header needs no CUDA

namespace btnet {

/// Type of the values that a network on a GPU takes.
enum class Element { f32, f16 };

/// Runs the networks of one bundle on a GPU: all that the pipeline knows of TensorRT.
class DeviceExecutor {
 public:
  virtual ~DeviceExecutor() = default;

  /// Length D of an embedding.
  virtual int dim() const = 0;

  virtual Element input_element() const = 0;

  /// The batch sizes that it runs, ascending; the last is at least 2, an image and its mirror image. Few of them make
  /// few graphs, many of them waste less work: a batch is filled up to the next size.
  virtual std::vector<int> batch_sizes(int resolution) const = 0;

  /// Puts the work of a batch into `stream` and returns without waiting for it; it may be recorded as a CUDA graph.
  ///
  /// input: count x 3 x resolution x resolution, normalised, of input_element(). output: count x dim() float32, raw
  /// embeddings. Both in device memory on a 256-byte boundary, not overlapping. count: one of batch_sizes(). slot: 0
  /// or 1; calls of different slots may be in progress on the device at the same time, those of one slot and
  /// resolution follow each other and have the same addresses until one of them fails. OutOfMemory makes the pipeline
  /// try smaller batches; whatever else it throws reaches the caller of embed. The executor must stay usable after it.
  virtual void enqueue(int resolution, int count, const void* input, float* output, CUstream_st* stream, int slot) = 0;

  /// Gives back the device memory that it can do without until the next enqueue. Called after OutOfMemory, when nothing
  /// that it put into a stream is running and no graph of it is left.
  virtual void release_memory() {}
};

}  // namespace btnet
