#include <cuda_fp16.h>

#include "cuda/device.h"
#include "cuda/launch.h"
#include "cuda/resample.h"
#include "cuda/resize_tile.cuh"

namespace btnet::cuda {
namespace {

constexpr int kTapThreads = 128;
constexpr int kPlanes = 3;
constexpr int kStore = 16;  // bytes

/// How bytes become a network's input; the sides of Normalization that a kernel can take.
struct Scaling {
  float mean[kPlanes], inverse_std[kPlanes];
  bool swap_red_blue;
};

// ---- taps

template <Filter filter>
__device__ __forceinline__ void fill_table(const TapTable& table, std::int32_t* workspace) {
  const Axis axis = make_axis(filter, table.in, table.out);
  std::int32_t* firsts = workspace + table.start;
  std::int32_t* counts = firsts + table.out;
  for (int i = threadIdx.x; i < table.out; i += kTapThreads) {
    const Window window = make_window(axis, i);
    // Weights are worked out twice: there is no room to keep them. Their sum is taken in Pillow's order.
    double sum = 0.0;
    for (int k = 0; k < window.count; ++k) {
      sum += tap_weight<filter>(axis, window.center, static_cast<double>(window.first + k));
    }
    std::int32_t* taps = counts + table.out + std::int64_t{i} * table.pixel_stride;
    for (int k = 0; k < window.count; ++k) {
      const double weight = tap_weight<filter>(axis, window.center, static_cast<double>(window.first + k));
      taps[std::int64_t{k} * table.tap_stride] = static_cast<std::int32_t>(fixed_tap(weight, sum));
    }
    firsts[i] = window.first;
    counts[i] = window.count;
  }
}

/// A block fills one table.
__global__ void __launch_bounds__(kTapThreads)
    fill_taps(const TapTable* tables, Filter filter, std::int32_t* workspace) {
  const TapTable table = tables[blockIdx.x];
  if (filter == Filter::bicubic) {
    fill_table<Filter::bicubic>(table, workspace);
  } else {
    fill_table<Filter::bilinear>(table, workspace);
  }
}

// ---- pixels

/// A tile as a part of the output image: lines of a transposed image are columns.
struct Patch {
  int row, column, height, width;
  int row_stride, column_stride;  // in the bytes of the tile

  __device__ Patch(const ResizeTask& task, const Tile& tile) {
    const int line_stride = tile.pixels * task.channels;
    const bool transposed = task.transposed;
    row = transposed ? tile.pixel : tile.line;
    column = transposed ? tile.line : tile.pixel;
    height = transposed ? tile.pixels : tile.lines;
    width = transposed ? tile.lines : tile.pixels;
    row_stride = transposed ? task.channels : line_stride;
    column_stride = transposed ? line_stride : task.channels;
  }
};

/// `size` elements that are stored at once.
template <class T, int size>
struct alignas(sizeof(T) * size) Pack {
  T values[size];
};

__device__ __forceinline__ bool is_aligned(const void* address) {
  return reinterpret_cast<std::uintptr_t>(address) % kStore == 0;
}

__device__ __forceinline__ void convert(float value, float& out) { out = value; }
__device__ __forceinline__ void convert(float value, __half& out) { out = __float2half_rn(value); }

/// `size` pixels of one channel, which are `step` bytes apart.
template <class T, int size>
__device__ __forceinline__ void store_pack(const std::uint8_t* bytes, int step, float mean, float inverse_std, T* out) {
  Pack<T, size> pack;
#pragma unroll
  for (int i = 0; i < size; ++i) convert((static_cast<float>(bytes[i * step]) - mean) * inverse_std, pack.values[i]);
  *reinterpret_cast<Pack<T, size>*>(out) = pack;
}

template <class T, int size>
__device__ __forceinline__ void store_packs(const ResizeTask& task, const Patch& patch, const std::uint8_t* tile,
                                            const Scaling& scaling) {
  const int side = task.along.out, packs = patch.width / size;
  auto* out = static_cast<T*>(task.out);
  auto* mirrored = static_cast<T*>(task.mirrored);
#pragma unroll 1
  for (int plane = 0; plane < kPlanes; ++plane) {
    const int channel = task.channels == 1 ? 0 : (scaling.swap_red_blue ? kPlanes - 1 - plane : plane);
    const float mean = scaling.mean[plane], inverse_std = scaling.inverse_std[plane];
#pragma unroll 1
    for (int i = threadIdx.x; i < patch.height * packs; i += kThreads) {
      const int y = i / packs, x = (i - y * packs) * size;
      const std::int64_t row = (static_cast<std::int64_t>(plane) * side + patch.row + y) * side;
      const std::uint8_t* bytes = tile + y * patch.row_stride + channel;
      store_pack<T, size>(bytes + x * patch.column_stride, patch.column_stride, mean, inverse_std,
                          out + row + patch.column + x);
      if (mirrored != nullptr) {
        // Stored in ascending order, too: the patch's last columns come first.
        store_pack<T, size>(bytes + (patch.width - 1 - x) * patch.column_stride, -patch.column_stride, mean,
                            inverse_std, mirrored + row + side - patch.column - patch.width + x);
      }
    }
  }
}

template <class T>
__device__ __forceinline__ void store_normalized(const ResizeTask& task, const Tile& tile, const std::uint8_t* bytes,
                                                 const Scaling& scaling) {
  constexpr int size = kStore / sizeof(T);
  const Patch patch(task, tile);
  const bool divides = task.along.out % size == 0 && patch.column % size == 0 && patch.width % size == 0;
  if (divides && is_aligned(task.out) && is_aligned(task.mirrored)) {
    store_packs<T, size>(task, patch, bytes, scaling);
  } else {
    store_packs<T, 1>(task, patch, bytes, scaling);
  }
}

__device__ __forceinline__ void resize_any_tile(const ResizeTask& task, const std::uint8_t* data,
                                                const std::int32_t* workspace, const Tile& tile, Shared& shared) {
  if (task.channels == 3) {
    resize_tile<3>(task, data, workspace, tile, shared);
  } else {
    resize_tile<1>(task, data, workspace, tile, shared);
  }
}

/// A block makes one tile of one image. Registers are kept so few that a multiprocessor takes three blocks.
__global__ void __launch_bounds__(kThreads, 3)
    resize_images(const ResizeTask* tasks, const std::int32_t* block_tasks, const std::int32_t* workspace,
                  const __grid_constant__ Scaling scaling, Element element) {
  __shared__ Shared shared;
  const ResizeTask& task = tasks[block_tasks[blockIdx.x]];
  const Tile tile = find_tile(task, blockIdx.x - task.first_block);
  resize_any_tile(task, task.data, workspace, tile, shared);
  if (element == Element::f32) {
    store_normalized<float>(task, tile, shared.tile, scaling);
  } else {
    store_normalized<__half>(task, tile, shared.tile, scaling);
  }
}

// ---- degrade

template <int size>
__device__ __forceinline__ void store_bytes(const ResizeTask& task, const Patch& patch, const std::uint8_t* tile,
                                            std::uint8_t* out) {
  const int channels = task.channels, width = patch.width * channels, packs = width / size;
  for (int i = threadIdx.x; i < patch.height * packs; i += kThreads) {
    const int y = i / packs, b = (i - y * packs) * size;
    Pack<std::uint8_t, size> pack;
#pragma unroll
    for (int j = 0; j < size; ++j) {
      const int x = (b + j) / channels, c = (b + j) - x * channels;
      pack.values[j] = tile[y * patch.row_stride + x * patch.column_stride + c];
    }
    const std::int64_t row = (static_cast<std::int64_t>(patch.row) + y) * task.along.out + patch.column;
    *reinterpret_cast<Pack<std::uint8_t, size>*>(out + row * channels + b) = pack;
  }
}

__device__ __forceinline__ void store_pixels(const ResizeTask& task, const Tile& tile, const std::uint8_t* bytes,
                                             std::uint8_t* out) {
  const Patch patch(task, tile);
  const int channels = task.channels;
  const bool divides = task.along.out * channels % kStore == 0 && patch.column * channels % kStore == 0 &&
                       patch.width * channels % kStore == 0;
  if (divides && is_aligned(out)) {
    store_bytes<kStore>(task, patch, bytes, out);
  } else {
    store_bytes<1>(task, patch, bytes, out);
  }
}

/// A block makes one whole image, since all of its tiles need the small one.
__global__ void __launch_bounds__(kThreads, 2) degrade_images(const DegradeTask* tasks, const std::int32_t* workspace) {
  __shared__ Shared shared;
  BTNET_DYNAMIC_SHARED(std::uint8_t, small);
  const DegradeTask& task = tasks[blockIdx.x];
  for (int step = 0; step < 2; ++step) {
    const ResizeTask& resize = step == 0 ? task.down : task.up;
    const std::uint8_t* data = step == 0 ? resize.data : small;
    std::uint8_t* out = step == 0 ? small : static_cast<std::uint8_t*>(resize.out);
    const int tiles = count_tiles(resize);
    for (int i = 0; i < tiles; ++i) {
      const Tile tile = find_tile(resize, i);
      // Its barriers also keep apart what was stored before and what it reads.
      resize_any_tile(resize, data, workspace, tile, shared);
      store_pixels(resize, tile, shared.tile, out);
    }
  }
}

void launch_taps(const TapTables& taps, const TapTable* tables, void* workspace, cudaStream_t stream) {
  BTNET_LAUNCH(fill_taps, static_cast<unsigned>(taps.tables().size()), kTapThreads, 0, stream, tables, taps.filter(),
               static_cast<std::int32_t*>(workspace));
  check(cudaGetLastError(), "launching fill_taps");
}

}  // namespace

void resize_normalize(const ResizePlan& plan, const Normalization& normalization, bool swap_red_blue, Element element,
                      const void* device_plan, void* workspace, cudaStream_t stream) {
  if (plan.blocks() == 0) return;
  Scaling scaling{};
  scaling.swap_red_blue = swap_red_blue;
  for (int plane = 0; plane < kPlanes; ++plane) {
    scaling.mean[plane] = normalization.mean[plane];
    scaling.inverse_std[plane] = 1.0f / normalization.std[plane];
  }
  launch_taps(plan.taps(), ResizePlan::find_tables(device_plan), workspace, stream);
  BTNET_LAUNCH(resize_images, static_cast<unsigned>(plan.blocks()), kThreads, 0, stream, plan.find_tasks(device_plan),
               plan.find_block_tasks(device_plan), static_cast<const std::int32_t*>(workspace), scaling, element);
  check(cudaGetLastError(), "launching resize_images");
}

void degrade(const DegradePlan& plan, const void* device_plan, void* workspace, cudaStream_t stream) {
  if (plan.blocks() == 0) return;
  launch_taps(plan.taps(), DegradePlan::find_tables(device_plan), workspace, stream);
  BTNET_LAUNCH(degrade_images, static_cast<unsigned>(plan.blocks()), kThreads, plan.small_bytes(), stream,
               plan.find_tasks(device_plan), static_cast<const std::int32_t*>(workspace));
  check(cudaGetLastError(), "launching degrade_images");
}

}  // namespace btnet::cuda
