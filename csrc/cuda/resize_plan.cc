#include "cuda/resize_plan.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "btnet/error.h"
#include "resample/taps.h"
#include "resample/views.h"

namespace btnet::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kAlignment = 16;

int divide_up(int value, int divisor) { return (value + divisor - 1) / divisor; }

int count_tiles(int side) { return divide_up(side, kTileLines) * divide_up(side, kTilePixels); }

/// As many as the block has threads for, within a warp.
int count_lanes(int side) {
  int lanes = kWarp;
  while (lanes * std::min(side, kTilePixels) > kThreads) lanes /= 2;
  return lanes;
}

bool is_aligned(const ResizeTask& task) {
  const bool packed = task.pixel_stride == task.channels && (task.channels == 1 || task.channel_stride == 1);
  return packed && task.line_stride % kAlignment == 0 && reinterpret_cast<std::uintptr_t>(task.data) % kAlignment == 0;
}

ResizeTask make_task(const ImageView& image, int side, TapTables& taps) {
  using Pass = TapTables::Pass;
  ResizeTask task{};
  task.data = image.data;
  task.channels = image.channels;
  task.channel_stride = image.channel_stride;
  task.lanes = count_lanes(side);
  task.transposed = vertical_first(image.height, image.width, side, side);
  if (task.transposed) {
    task.line_stride = image.column_stride;
    task.pixel_stride = image.row_stride;
    task.along = taps.add(image.height, side, Pass::along);
    task.across = taps.add(image.width, side, Pass::across);
  } else {
    task.line_stride = image.row_stride;
    task.pixel_stride = image.column_stride;
    task.along = taps.add(image.width, side, Pass::along);
    task.across = taps.add(image.height, side, Pass::across);
  }
  task.aligned = is_aligned(task);
  return task;
}

template <class T>
void append(const std::vector<T>& values, std::vector<std::byte>& bytes) {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t start = bytes.size();
  bytes.resize(start + values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data() + start, values.data(), values.size() * sizeof(T));
}

template <class T>
const T* at(const void* bytes, std::size_t offset) {
  return reinterpret_cast<const T*>(static_cast<const std::byte*>(bytes) + offset);
}

}  // namespace

TapTable TapTables::add(int in, int out, Pass pass) {
  const auto [found, is_new] = index_.try_emplace({in, out, pass}, tables_.size());
  if (is_new) {
    const int taps = max_taps(make_axis(filter_, in, out));
    const bool along = pass == Pass::along;
    tables_.push_back({workspace_size_, in, out, along ? out : 1, along ? 1 : taps});
    workspace_size_ += std::int64_t{out} * (2 + taps);
  }
  return tables_[found->second];
}

ResizePlan::ResizePlan(const std::vector<Resize>& images, Filter filter) : taps_(filter) {
  std::vector<ResizeTask> tasks;
  std::vector<std::int32_t> block_tasks;
  for (const Resize& resize : images) {
    check_image(resize.image);
    check_side("side", resize.side);
    ResizeTask task = make_task(resize.image, resize.side, taps_);
    task.out = resize.out;
    task.mirrored = resize.mirrored;
    task.first_block = static_cast<int>(block_tasks.size());
    block_tasks.insert(block_tasks.end(), count_tiles(resize.side), static_cast<int>(tasks.size()));
    tasks.push_back(task);
  }
  blocks_ = static_cast<int>(block_tasks.size());
  append(taps_.tables(), bytes_);
  append(tasks, bytes_);
  append(block_tasks, bytes_);
  tasks_ = tasks.size();
}

const ResizeTask* ResizePlan::find_tasks(const void* bytes) const {
  return at<ResizeTask>(bytes, taps_.tables().size() * sizeof(TapTable));
}

const std::int32_t* ResizePlan::find_block_tasks(const void* bytes) const {
  return at<std::int32_t>(bytes, taps_.tables().size() * sizeof(TapTable) + tasks_ * sizeof(ResizeTask));
}

DegradePlan::DegradePlan(const std::vector<Degrade>& images, Filter filter)
    : taps_(filter), blocks_(static_cast<int>(images.size())) {
  std::vector<DegradeTask> tasks;
  for (const Degrade& degrade : images) {
    const int side = degrade.resolution, channels = degrade.image.channels;
    check_image(degrade.image);
    check_side("canonical", degrade.canonical);
    if (side < 1 || side > kMaxResolution) {
      throw InvalidOption("resolution is " + std::to_string(side) + ", expected 1 to " +
                          std::to_string(kMaxResolution));
    }
    const ImageView small = packed_view(nullptr, side, side, channels, std::ptrdiff_t{side} * channels);
    DegradeTask task{make_task(degrade.image, side, taps_), make_task(small, degrade.canonical, taps_)};
    task.up.out = degrade.out;
    small_bytes_ = std::max(small_bytes_, side * side * channels);
    tasks.push_back(task);
  }
  append(taps_.tables(), bytes_);
  append(tasks, bytes_);
}

const DegradeTask* DegradePlan::find_tasks(const void* bytes) const {
  return at<DegradeTask>(bytes, taps_.tables().size() * sizeof(TapTable));
}

}  // namespace btnet::cuda
