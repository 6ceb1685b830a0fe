#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "btnet/image.h"
#include "btnet/resample.h"

/// What the host works out before the kernels of resample.h run: a block of plain structs, which the caller copies to
/// the device. Nothing here touches a device.
///
/// A *line* is a row of the image, or a column of it where Pillow begins with the vertical pass (vertical_first() in
/// taps.h): such an image is resized as its transpose. The first pass goes along the lines, the second across them.
namespace btnet::cuda {

/// To side x side, normalised and spread into planes.
struct Resize {
  ImageView image;  ///< in device memory
  int side;
  void* out;       ///< 3 x side x side of the network's element type, in device memory
  void* mirrored;  ///< the same flipped left to right, or null
};

/// Down to resolution x resolution and up again to canonical x canonical (Knoche et al. 2021, Eq. 1).
struct Degrade {
  ImageView image;  ///< in device memory
  int resolution, canonical;
  std::uint8_t* out;  ///< canonical x canonical x image.channels, in device memory
};

constexpr int kThreads = 224;       ///< of a block that resizes
constexpr int kTileLines = 7;       ///< a block makes a tile of the output: at most so many lines,
constexpr int kTilePixels = 112;    ///< and so many pixels of each
constexpr int kMaxResolution = 84;  ///< of degrade: the small image has to fit beside the rest in 48 KiB

/// The filter taps of one axis. They are in the workspace, counted in int32 from its start: `out` first pixels, `out`
/// numbers of taps, and then tap k of output pixel i at k * tap_stride + i * pixel_stride.
struct TapTable {
  std::int64_t start;
  std::int32_t in, out, tap_stride, pixel_stride;
};

/// One resize, for the device.
struct ResizeTask {
  const std::uint8_t* data;  ///< null for an image that is made on the device
  std::int64_t line_stride, pixel_stride, channel_stride;
  TapTable along, across;  ///< of the first and of the second pass
  void* out;
  void* mirrored;
  std::int32_t channels;
  std::int32_t lanes;        ///< threads, neighbours in a warp, that share a pixel of all lines of a tile
  std::int32_t first_block;  ///< of the grid
  bool transposed;           ///< lines are columns of the image
  bool aligned;              ///< lines are packed and begin at multiples of 16 bytes
};

/// Two resizes, the second of what the first one makes.
struct DegradeTask {
  ResizeTask down, up;
};

/// The distinct axes of many resizes: images of one size share their taps.
class TapTables {
 public:
  enum class Pass { along, across };

  explicit TapTables(Filter filter) : filter_(filter) {}

  /// The table of an axis. Neighbouring threads read taps of neighbouring pixels in the pass along lines, and
  /// neighbouring taps of one pixel in the pass across them: in this order they lie.
  TapTable add(int in, int out, Pass pass);

  Filter filter() const { return filter_; }
  const std::vector<TapTable>& tables() const { return tables_; }
  std::size_t workspace_bytes() const { return workspace_size_ * sizeof(std::int32_t); }

 private:
  Filter filter_;
  std::int64_t workspace_size_ = 0;
  std::map<std::tuple<int, int, Pass>, std::size_t> index_;
  std::vector<TapTable> tables_;
};

/// A batch of images of any sizes, for resize_normalize().
class ResizePlan {
 public:
  /// Throws InvalidImage or InvalidOption for an image or a side that is none.
  ResizePlan(const std::vector<Resize>& images, Filter filter);

  /// What the device has to have, at an address that is a multiple of 16.
  const std::vector<std::byte>& bytes() const { return bytes_; }
  const TapTables& taps() const { return taps_; }
  int blocks() const { return blocks_; }

  /// Where things are, `bytes` being the address of the copy on the device.
  static const TapTable* find_tables(const void* bytes) { return static_cast<const TapTable*>(bytes); }
  const ResizeTask* find_tasks(const void* bytes) const;
  const std::int32_t* find_block_tasks(const void* bytes) const;  ///< the task of each block of the grid

 private:
  TapTables taps_;
  std::vector<std::byte> bytes_;
  std::size_t tasks_;
  int blocks_ = 0;
};

/// A batch of images of any sizes, for degrade().
class DegradePlan {
 public:
  /// Throws InvalidImage, or InvalidOption for a resolution outside 1 .. kMaxResolution or a canonical below 1.
  DegradePlan(const std::vector<Degrade>& images, Filter filter);

  const std::vector<std::byte>& bytes() const { return bytes_; }
  const TapTables& taps() const { return taps_; }
  int blocks() const { return blocks_; }
  int small_bytes() const { return small_bytes_; }  ///< of shared memory for the largest small image

  static const TapTable* find_tables(const void* bytes) { return static_cast<const TapTable*>(bytes); }
  const DegradeTask* find_tasks(const void* bytes) const;

 private:
  TapTables taps_;
  std::vector<std::byte> bytes_;
  int blocks_, small_bytes_ = 0;
};

}  // namespace btnet::cuda
