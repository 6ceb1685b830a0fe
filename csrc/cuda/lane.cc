#include "cuda/lane.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "cuda/resample.h"
#include "resample/views.h"

namespace btnet::cuda {
namespace {

constexpr std::size_t kPlanes = 3;
constexpr std::size_t kAlignment = 16;  // of tables on the device

std::size_t align(std::size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::size_t element_bytes(Element element) { return element == Element::f32 ? 4 : 2; }

std::size_t row_bytes(int resolution, Element element) {
  return kPlanes * resolution * resolution * element_bytes(element);
}

/// The image as it lies at `data` once it has been copied there.
ImageView staged_view(const ImageView& image, const std::byte* data) {
  return packed_view(reinterpret_cast<const std::uint8_t*>(data), image.height, image.width, image.channels,
                     static_cast<std::ptrdiff_t>(staged_pitch(image)));
}

}  // namespace

Lane::Lane(const Bundle& bundle, DeviceExecutor& executor, int slot, const Log& log)
    : bundle_(bundle), executor_(executor), slot_(slot), log_(log) {}

void Lane::start(const Request& request, const Batch& batch, const BatchLimits& limits) {
  batch_ = batch;
  busy_ = true;
  const std::vector<int> row_of = place_rows(request, limits);
  const ScatterRow* scatter = copy_in(request, row_of);
  run_networks(limits);
  copy_out(scatter, request.normalize);
  done_.record(main_.get());
}

std::size_t Lane::finish(float* out) {
  done_.synchronize();
  const std::size_t dim = bundle_.dim, count = batch_.end - batch_.begin;
  std::memcpy(out + batch_.begin * dim, collected_.get(), count * dim * sizeof(float));
  busy_ = false;
  return batch_.end;
}

void Lane::reset() noexcept {
  cudaStreamSynchronize(main_.get());
  for (auto& [resolution, branch] : branches_) {
    cudaStreamSynchronize(branch.stream.get());
    branch.graphs.clear();
    branch.warm.clear();
    branch.input.release();
    branch.output.release();
  }
  for (DeviceMemory* memory : {&staged_, &workspace_, &rows_}) memory->release();
  for (PinnedMemory* memory : {&staging_, &collected_}) memory->release();
  static_cast<void>(cudaGetLastError());
  busy_ = false;
}

/// Gives every image a row in the batch of its branch, with the next one for its mirror image, and readies the
/// branches' memory: once for the largest batch, since graphs remember addresses.
std::vector<int> Lane::place_rows(const Request& request, const BatchLimits& limits) {
  for (auto& [resolution, branch] : branches_) branch.rows = 0;
  std::vector<int> row_of;
  for (std::size_t i = batch_.begin; i < batch_.end; ++i) {
    int& rows = branches_[request.branch_of[i]].rows;
    row_of.push_back(rows);
    rows += request.views();
  }
  for (auto& [resolution, branch] : branches_) {
    if (branch.rows == 0) continue;
    const std::size_t largest = limits.largest(resolution);
    branch.input.reserve(largest * row_bytes(resolution, executor_.input_element()));
    branch.output.reserve(largest * bundle_.dim * sizeof(float));
  }
  return row_of;
}

/// The addresses of each image's pixels, which are staged or on the device already, and of its rows in its branch.
Lane::Tables Lane::make_tables(const Request& request, const std::vector<int>& row_of, const std::byte* staged) {
  std::vector<Resize> resizes;
  std::vector<ScatterRow> scatter;
  for (std::size_t i = 0; i < row_of.size(); ++i) {
    const SourceImage& image = request.images[batch_.begin + i];
    const int side = request.branch_of[batch_.begin + i];
    const Branch& branch = branches_.at(side);
    const std::size_t bytes = row_bytes(side, executor_.input_element());
    std::byte* input = static_cast<std::byte*>(branch.input.get()) + row_of[i] * bytes;
    const float* output = static_cast<const float*>(branch.output.get()) + std::size_t(row_of[i]) * bundle_.dim;
    const ImageView view = image.on_device ? image.view : staged_view(image.view, staged);
    resizes.push_back({view, side, input, request.flip ? input + bytes : nullptr});
    scatter.push_back({output, request.flip ? output + bundle_.dim : nullptr, static_cast<std::int64_t>(i)});
    staged += staged_bytes(image);
  }
  return {ResizePlan(resizes, bundle_.filter), std::move(scatter)};
}

/// Sends pixels and tables in one copy, and resizes into the inputs of all branches. Returns the table for copy_out.
const ScatterRow* Lane::copy_in(const Request& request, const std::vector<int>& row_of) {
  std::size_t pixels = 0;
  for (std::size_t i = batch_.begin; i < batch_.end; ++i) pixels += staged_bytes(request.images[i]);
  auto* staged = static_cast<std::byte*>(staged_.reserve(pixels));
  Tables tables = make_tables(request, row_of, staged);
  const std::size_t plan_bytes = tables.plan.bytes().size();
  const std::size_t scatter_at = align(pixels + plan_bytes), scatter_bytes = row_of.size() * sizeof(ScatterRow);
  const std::size_t bytes = scatter_at + scatter_bytes;
  if (auto* grown = static_cast<std::byte*>(staged_.reserve(bytes)); grown != staged) {
    staged = grown;
    tables = make_tables(request, row_of, staged);
  }

  auto* staging = static_cast<std::byte*>(staging_.reserve(bytes));
  std::byte* next = staging;
  for (std::size_t i = batch_.begin; i < batch_.end; ++i) {
    const SourceImage& image = request.images[i];
    if (!image.on_device) {
      copy_packed(image.view, static_cast<std::ptrdiff_t>(staged_pitch(image.view)),
                  reinterpret_cast<std::uint8_t*>(next));
    }
    next += staged_bytes(image);
  }
  std::memcpy(next, tables.plan.bytes().data(), plan_bytes);
  std::memcpy(staging + scatter_at, tables.scatter.data(), scatter_bytes);
  check(cudaMemcpyAsync(staged, staging, bytes, cudaMemcpyHostToDevice, main_.get()), "copying images");
  void* workspace = workspace_.reserve(tables.plan.taps().workspace_bytes());
  resize_normalize(tables.plan, bundle_.normalization, request.swap_red_blue, executor_.input_element(),
                   staged + pixels, workspace, main_.get());
  resized_.record(main_.get());
  return reinterpret_cast<const ScatterRow*>(staged + scatter_at);
}

void Lane::run_networks(const BatchLimits& limits) {
  for (auto& [resolution, branch] : branches_) {
    if (branch.rows == 0) continue;
    branch.stream.wait(resized_);
    run_network(resolution, branch, limits.size_for(resolution, branch.rows));
    branch.finished.record(branch.stream.get());
    main_.wait(branch.finished);
  }
}

void Lane::run_network(int resolution, Branch& branch, int size) {
  const auto enqueue = [&] {
    executor_.enqueue(resolution, size, branch.input.get(), static_cast<float*>(branch.output.get()),
                      branch.stream.get(), slot_);
  };
  if (branch.warm.insert(size).second || !record(resolution, branch, size, enqueue)) {
    enqueue();
  } else {
    branch.graphs.at(size).launch(branch.stream.get());
  }
}

/// Sees to it that there is a graph for a size; false where the network cannot be recorded. It can do without: a graph
/// only saves launches.
template <class Enqueue>
bool Lane::record(int resolution, Branch& branch, int size, const Enqueue& enqueue) {
  if (!branch.recordable || branch.graphs.count(size) > 0) return branch.recordable;
  try {
    branch.graphs.emplace(size, Graph::record(branch.stream.get(), enqueue));
  } catch (const Error& error) {
    branch.recordable = false;
    branch.graphs.clear();
    if (log_) {
      log_("the network for resolution " + std::to_string(resolution) + " runs without a CUDA graph: " + error.what());
    }
  }
  return branch.recordable;
}

void Lane::copy_out(const ScatterRow* scatter, bool normalize) {
  const std::size_t count = batch_.end - batch_.begin, bytes = count * bundle_.dim * sizeof(float);
  auto* rows = static_cast<float*>(rows_.reserve(bytes));
  void* collected = collected_.reserve(bytes);
  scatter_rows(scatter, static_cast<int>(count), bundle_.dim, normalize, rows, main_.get());
  check(cudaMemcpyAsync(collected, rows, bytes, cudaMemcpyDeviceToHost, main_.get()), "copying embeddings");
}

}  // namespace btnet::cuda
