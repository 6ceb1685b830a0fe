#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

/// From the embeddings of all branches to the caller's order.
namespace btnet::cuda {

/// One embedding, in device memory, and where it goes.
struct ScatterRow {
  const float* row;
  const float* mirrored;     ///< the embedding of the mirror image, which is added; or null
  std::int64_t destination;  ///< a row of `out`
};

/// Writes `count` embeddings of `dim` floats, in one launch; `rows` and `out` (any number of rows x dim) are in device
/// memory. With `normalize`, each is scaled to length one, its squares summed in double; a zero vector stays one.
/// Rows at multiples of 16 bytes with a dim that 4 divides move 16 bytes at a time. Throws Error if the launch fails.
void scatter_rows(const ScatterRow* rows, int count, int dim, bool normalize, float* out, cudaStream_t stream);

}  // namespace btnet::cuda
