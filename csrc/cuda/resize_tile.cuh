#pragma once

#include <cstdint>

#include "cuda/resize_plan.h"
#include "resample/taps.h"

/// How one block resizes one tile of an image, from the source's bytes to the tile's bytes in shared memory.
///
/// A thread has one pixel (of every line of the tile) and a share of the source lines: `lanes` neighbouring threads of
/// a warp share a pixel. It weighs the source pixels of a line to one byte for each channel (first pass), adds that
/// byte, times its tap, to each line of the tile (second pass), and at the end the lanes add up what they have. All of
/// it are integer sums, so that their order makes no difference. Between the passes nothing leaves the registers.
///
/// Source lines come through shared memory, in chunks that hold kLinesPerThread lines for each lane, and in segments
/// of these lines where they are long.
namespace btnet::cuda {

constexpr int kLinesPerThread = 4;  // whose sums a tap is read for once
constexpr int kMaxLanes = 32;
constexpr int kMaxChunk = kLinesPerThread * kMaxLanes;
constexpr int kLoad = 16;                     // bytes; segments begin at multiples of so many pixels
constexpr int kStageBytes = kMaxChunk * 148;  // 148 = 3 segments of 16 pixels, and a word
constexpr int kTapStride = 8;                 // kTileLines, rounded up: 16 bytes are read at a time

struct Shared {
  alignas(kLoad) std::uint8_t pixels[kStageBytes];
  alignas(kLoad) std::int32_t taps[kMaxChunk][kTapStride];  // of each source line, for each line of the tile
  std::uint8_t tile[kTileLines * kTilePixels * 3];          // lines x pixels x channels
};

/// The part of the output that a block makes.
struct Tile {
  int line, lines;
  int pixel, pixels;
};

__device__ __forceinline__ int count_tiles_along(const ResizeTask& task) {
  return (task.along.out + kTilePixels - 1) / kTilePixels;
}

__device__ __forceinline__ int count_tiles(const ResizeTask& task) {
  return (task.across.out + kTileLines - 1) / kTileLines * count_tiles_along(task);
}

__device__ __forceinline__ Tile find_tile(const ResizeTask& task, int index) {
  const int tiles_along = count_tiles_along(task);
  const int line = index / tiles_along * kTileLines, pixel = index % tiles_along * kTilePixels;
  return {line, min(kTileLines, task.across.out - line), pixel, min(kTilePixels, task.along.out - pixel)};
}

/// A TapTable that is filled.
struct Taps {
  const std::int32_t *firsts, *counts, *taps;

  __device__ Taps(const TapTable& table, const std::int32_t* workspace)
      : firsts(workspace + table.start), counts(firsts + table.out), taps(counts + table.out) {}
  __device__ int end(int i) const { return firsts[i] + counts[i]; }
};

/// Source lines and pixels that are in shared memory. Lines are `pitch` bytes apart, an odd number of words: lanes that
/// read the same pixel of different lines meet no bank conflicts.
struct Staged {
  int line, lines;
  int pixel, pixels;
  int pitch;
};

template <int channels>
__device__ __forceinline__ void stage_aligned(const ResizeTask& task, const std::uint8_t* data, const Staged& staged,
                                              std::uint8_t* out) {
  const int bytes = staged.pixels * channels, loads = (bytes + kLoad - 1) / kLoad;
  data += staged.line * task.line_stride + staged.pixel * channels;
#pragma unroll 1  // registers are scarcer than loads in flight: several blocks share a multiprocessor
  for (int i = threadIdx.x; i < staged.lines * loads; i += kThreads) {
    const int line = i / loads, start = (i - line * loads) * kLoad;
    const std::uint8_t* from = data + line * task.line_stride + start;
    std::uint8_t* to = out + line * staged.pitch + start;
    if (start + kLoad <= bytes) {
      const uint4 words = *reinterpret_cast<const uint4*>(from);
      auto* to_words = reinterpret_cast<std::uint32_t*>(to);  // the pitch rules out one store of 16 bytes
      to_words[0] = words.x;
      to_words[1] = words.y;
      to_words[2] = words.z;
      to_words[3] = words.w;
    } else {
      for (int b = 0; b < bytes - start; ++b) to[b] = from[b];
    }
  }
}

/// Any strides. Neighbouring threads take neighbours along a row of the image, which is across the lines of a
/// transposed one.
template <int channels>
__device__ __forceinline__ void stage_strided(const ResizeTask& task, const std::uint8_t* data, const Staged& staged,
                                              std::uint8_t* out) {
  const int run = task.transposed ? staged.lines : staged.pixels;
#pragma unroll 1
  for (int i = threadIdx.x; i < staged.lines * staged.pixels; i += kThreads) {
    const int row = i / run, column = i - row * run;
    const int line = task.transposed ? column : row, pixel = task.transposed ? row : column;
    const std::uint8_t* from =
        data + (staged.line + line) * task.line_stride + (staged.pixel + pixel) * task.pixel_stride;
    std::uint8_t* to = out + line * staged.pitch + pixel * channels;
#pragma unroll
    for (int c = 0; c < channels; ++c) to[c] = from[c * task.channel_stride];
  }
}

/// The taps of source lines from `line` on, zero for lines outside the window of a line of the tile.
__device__ __forceinline__ void stage_taps(const Taps& across, int tap_stride, const Tile& tile, int line, int lines,
                                           std::int32_t (*out)[kTapStride]) {
#pragma unroll 1
  for (int i = threadIdx.x; i < lines * kTileLines; i += kThreads) {
    const int row = i / lines, source = i - row * lines;  // neighbouring threads read neighbouring taps
    std::int32_t tap = 0;
    if (row < tile.lines) {
      const int index = tile.line + row, k = line + source - across.firsts[index];
      if (k >= 0 && k < across.counts[index]) tap = across.taps[index * tap_stride + k];
    }
    out[source][row] = tap;
  }
}

/// The first pass, as far as what is staged goes: adds the pixels first .. end - 1 of this thread's lines, times their
/// taps, to `values`.
template <int channels>
__device__ __forceinline__ void add_along(const Staged& staged, const std::uint8_t* pixels, int first, int end,
                                          const std::int32_t* taps, int tap_stride, int lane, int lanes,
                                          std::int32_t (&values)[kLinesPerThread][channels]) {
  const int stop = min(end, staged.pixel + staged.pixels);
#pragma unroll 1
  for (int x = max(first, staged.pixel); x < stop; ++x) {
    const std::int32_t tap = taps[(x - first) * tap_stride];
#pragma unroll
    for (int i = 0; i < kLinesPerThread; ++i) {
      const int line = min(i * lanes + lane, staged.lines - 1);  // past the end, a value that nobody uses
      const std::uint8_t* from = pixels + line * staged.pitch + (x - staged.pixel) * channels;
#pragma unroll
      for (int c = 0; c < channels; ++c) values[i][c] += tap * from[c];
    }
  }
}

/// The second pass, as far as this thread's lines go: adds their bytes, times their taps, to the lines of the tile.
template <int channels>
__device__ __forceinline__ void add_across(const std::int32_t (*taps)[kTapStride], int lines, int lane, int lanes,
                                           const std::int32_t (&values)[kLinesPerThread][channels],
                                           std::int32_t (&sums)[kTileLines][channels]) {
#pragma unroll
  for (int i = 0; i < kLinesPerThread; ++i) {
    const int line = i * lanes + lane;
    if (line >= lines) continue;
#pragma unroll
    for (int y = 0; y < kTileLines; ++y) {
#pragma unroll
      for (int c = 0; c < channels; ++c) sums[y][c] += taps[line][y] * clip8(kTapHalf + values[i][c]);
    }
  }
}

/// Adds up what the lanes of each pixel have, and writes the bytes.
template <int channels>
__device__ __forceinline__ void collect(const Tile& tile, int pixel, int lane, int lanes,
                                        std::int32_t (&sums)[kTileLines][channels], std::uint8_t* out) {
#pragma unroll
  for (int y = 0; y < kTileLines; ++y) {
#pragma unroll
    for (int c = 0; c < channels; ++c) {
      for (int distance = lanes / 2; distance > 0; distance /= 2) {
        sums[y][c] += __shfl_xor_sync(0xffffffffu, sums[y][c], distance);
      }
      if (pixel < tile.pixels && y < tile.lines && y % lanes == lane) {
        out[(y * tile.pixels + pixel) * channels + c] = clip8(kTapHalf + sums[y][c]);
      }
    }
  }
}

/// Makes shared.tile, and ends with a barrier. All threads of the block take part.
template <int channels>
__device__ __forceinline__ void resize_tile(const ResizeTask& task, const std::uint8_t* data,
                                            const std::int32_t* workspace, const Tile& tile, Shared& shared) {
  const Taps along(task.along, workspace), across(task.across, workspace);
  const int lanes = task.lanes, lane = threadIdx.x % lanes, pixel = threadIdx.x / lanes;
  // Threads that are left over have no pixels to add, and help with the rest.
  const int column = tile.pixel + pixel;
  const int first = pixel < tile.pixels ? along.firsts[column] : 0, end = pixel < tile.pixels ? along.end(column) : 0;

  const int chunk = kLinesPerThread * lanes;
  const int segment = (kStageBytes / chunk - 4) / (kLoad * channels) * kLoad;
  Staged staged{};
  staged.pitch = segment * channels + 4;
  const int pixels_begin = along.firsts[tile.pixel] / kLoad * kLoad;
  const int pixels_end = along.end(tile.pixel + tile.pixels - 1);
  const int lines_end = across.end(tile.line + tile.lines - 1);

  std::int32_t sums[kTileLines][channels] = {};
  for (staged.line = across.firsts[tile.line]; staged.line < lines_end; staged.line += chunk) {
    staged.lines = min(chunk, lines_end - staged.line);
    std::int32_t values[kLinesPerThread][channels] = {};
    for (staged.pixel = pixels_begin; staged.pixel < pixels_end; staged.pixel += segment) {
      staged.pixels = min(segment, pixels_end - staged.pixel);
      __syncthreads();  // everybody has read what was staged before
      if (staged.pixel == pixels_begin) {
        stage_taps(across, task.across.pixel_stride, tile, staged.line, staged.lines, shared.taps);
      }
      if (task.aligned) {
        stage_aligned<channels>(task, data, staged, shared.pixels);
      } else {
        stage_strided<channels>(task, data, staged, shared.pixels);
      }
      __syncthreads();
      add_along<channels>(staged, shared.pixels, first, end, along.taps + column, task.along.tap_stride, lane, lanes,
                          values);
    }
    add_across<channels>(shared.taps, staged.lines, lane, lanes, values, sums);
  }
  collect<channels>(tile, pixel, lane, lanes, sums, shared.tile);
  __syncthreads();
}

}  // namespace btnet::cuda
