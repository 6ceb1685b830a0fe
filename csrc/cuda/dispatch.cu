#include "cuda/device.h"
#include "cuda/dispatch.h"
#include "cuda/launch.h"

namespace btnet::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 4;  // of a block
constexpr unsigned kAllLanes = 0xffffffffu;

/// `size` floats that are loaded and stored at once.
template <int size>
struct alignas(sizeof(float) * size) Floats {
  float values[size];
};

template <int size>
__device__ Floats<size> load(const ScatterRow& entry, int index) {
  auto floats = reinterpret_cast<const Floats<size>*>(entry.row)[index];
  if (entry.mirrored != nullptr) {
    const auto mirrored = reinterpret_cast<const Floats<size>*>(entry.mirrored)[index];
#pragma unroll
    for (int i = 0; i < size; ++i) floats.values[i] += mirrored.values[i];
  }
  return floats;
}

/// What the row has to be multiplied by; every lane gets it.
template <int size>
__device__ double find_scale(const ScatterRow& entry, int lane, int dim) {
  double squares = 0.0;
  for (int i = lane; i < dim / size; i += kWarp) {
    const auto floats = load<size>(entry, i);
#pragma unroll
    for (int j = 0; j < size; ++j) squares += static_cast<double>(floats.values[j]) * floats.values[j];
  }
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    squares += __shfl_xor_sync(kAllLanes, squares, distance);
  }
  return squares == 0.0 ? 1.0 : 1.0 / sqrt(squares);
}

template <int size>
__device__ void write_row(const ScatterRow& entry, int lane, int dim, bool normalize, float* out) {
  const double scale = normalize ? find_scale<size>(entry, lane, dim) : 1.0;
  for (int i = lane; i < dim / size; i += kWarp) {
    auto floats = load<size>(entry, i);  // the second time from the cache
#pragma unroll
    for (int j = 0; j < size; ++j) floats.values[j] = static_cast<float>(floats.values[j] * scale);
    reinterpret_cast<Floats<size>*>(out)[i] = floats;
  }
}

/// A warp writes one row.
__global__ void __launch_bounds__(kWarp* kWarps)
    scatter(const ScatterRow* rows, int count, int dim, bool normalize, float* out) {
  const int lane = threadIdx.x % kWarp, row = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (row >= count) return;  // the whole warp
  const ScatterRow entry = rows[row];
  float* to = out + entry.destination * dim;
  const auto bits = reinterpret_cast<std::uintptr_t>(entry.row) | reinterpret_cast<std::uintptr_t>(entry.mirrored) |
                    reinterpret_cast<std::uintptr_t>(to);
  if (dim % 4 == 0 && bits % sizeof(Floats<4>) == 0) {
    write_row<4>(entry, lane, dim, normalize, to);
  } else {
    write_row<1>(entry, lane, dim, normalize, to);
  }
}

}  // namespace

void scatter_rows(const ScatterRow* rows, int count, int dim, bool normalize, float* out, cudaStream_t stream) {
  if (count == 0) return;
  BTNET_LAUNCH(scatter, static_cast<unsigned>((count + kWarps - 1) / kWarps), kWarp * kWarps, 0, stream, rows, count,
               dim, normalize, out);
  check(cudaGetLastError(), "launching scatter");
}

}  // namespace btnet::cuda
