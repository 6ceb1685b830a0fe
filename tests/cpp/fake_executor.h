#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/executor.h"
#include "btnet/image.h"

namespace btnet {

constexpr int kDim = 5;
using Embedding = std::vector<float>;

/// A bundle that exists in memory only, for executors that need none on disk.
inline Bundle fake_bundle() {
  Bundle made;
  made.name = "fake";
  made.dim = kDim;
  made.canonical = 112;
  made.resolutions = {7, 14, 28, 112};
  made.normalization = {{100, 110, 120}, {10, 20, 40}};
  return made;
}

/// What the tests see of an executor that the engine owns.
struct Record {
  std::mutex mutex;
  std::vector<std::pair<int, int>> runs;  // resolution, count
  std::set<int> busy;                     // slots in use
  std::vector<std::string> complaints;
  std::atomic<int> fail_at{0};  // the run, counted from 1, that throws
};

/// What stands for a network: the mean of each channel, the mean of the first channel's left column, the resolution.
inline void embed_by_means(int resolution, int count, const float* input, float* output) {
  const std::size_t plane = std::size_t(resolution) * resolution;
  for (int n = 0; n < count; ++n) {
    for (int channel = 0; channel < 3; ++channel) {
      double sum = 0;
      for (std::size_t k = 0; k < plane; ++k) sum += input[(n * 3 + channel) * plane + k];
      output[n * kDim + channel] = static_cast<float>(sum / plane);
    }
    double left = 0;
    for (int y = 0; y < resolution; ++y) left += input[n * 3 * plane + y * resolution];
    output[n * kDim + 3] = static_cast<float>(left / resolution);
    output[n * kDim + 4] = static_cast<float>(resolution);
  }
}

class FakeExecutor final : public Executor {
 public:
  FakeExecutor(Record& record, int slots, int max_batch = 4, int dim = kDim)
      : record_(record), slots_(slots), max_batch_(max_batch), dim_(dim) {}

  int slots() const override { return slots_; }
  int max_batch(int) const override { return max_batch_; }
  int dim() const override { return dim_; }

  void run(int resolution, int count, const float* input, float* output, int slot) override {
    begin(resolution, count, input, output, slot);
    embed_by_means(resolution, count, input, output);
    const std::lock_guard lock(record_.mutex);
    record_.busy.erase(slot);
  }

 private:
  void begin(int resolution, int count, const float* input, const float* output, int slot) {
    const std::lock_guard lock(record_.mutex);
    const auto expect = [this](bool holds, const char* what) {
      if (!holds) record_.complaints.push_back(what);
    };
    expect(slot >= 0 && slot < slots_, "a slot that does not exist");
    expect(count >= 1 && count <= max_batch_, "a count out of range");
    expect(reinterpret_cast<std::uintptr_t>(input) % 64 == 0, "the input is not aligned");
    expect(reinterpret_cast<std::uintptr_t>(output) % 64 == 0, "the output is not aligned");
    record_.runs.emplace_back(resolution, count);
    if (static_cast<int>(record_.runs.size()) == record_.fail_at) throw std::runtime_error("the executor failed");
    expect(record_.busy.insert(slot).second, "two runs in one slot");
  }

  Record& record_;
  int slots_, max_batch_, dim_;
};

/// A contiguous image that owns its pixels.
struct Image {
  int height, width, channels;
  std::vector<std::uint8_t> pixels;

  ImageView view() const { return {pixels.data(), height, width, channels, width * channels, channels, 1}; }
};

inline Image plain(int height, int width, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  Image image{height, width, 3, {}};
  for (int i = 0; i < height * width; ++i) image.pixels.insert(image.pixels.end(), {red, green, blue});
  return image;
}

inline Image noise(int height, int width, int channels, std::mt19937& random) {
  Image image{height, width, channels, std::vector<std::uint8_t>(std::size_t(height) * width * channels)};
  for (std::uint8_t& value : image.pixels) value = static_cast<std::uint8_t>(random());
  return image;
}

inline std::vector<ImageView> views(const std::vector<Image>& images) {
  std::vector<ImageView> all;
  for (const Image& image : images) all.push_back(image.view());
  return all;
}

}  // namespace btnet
