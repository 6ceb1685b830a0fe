#pragma once

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "btnet/engine.h"
#include "btnet/error.h"
#include "btnet/pipeline.h"
#include "cuda/device.h"
#include "emulated_runtime.h"
#include "fake_executor.h"

/// The pipeline on an emulated device, kernels included, against the engine on the CPU. Both have executors that
/// compute the same means, so that their embeddings are the same bits.
namespace btnet::cuda {

/// What the tests see of an executor that the pipeline owns.
struct DeviceRecord {
  std::vector<std::array<int, 3>> enqueued;                     // resolution, count, slot
  std::map<std::pair<int, int>, std::set<const void*>> inputs;  // by slot and resolution
  int fail_at = 0;                                              // the call of enqueue, counted from 1, that throws
};

inline const std::vector<int> kSizes = {1, 2, 3, 8};

class MeansOnDevice final : public DeviceExecutor {
 public:
  explicit MeansOnDevice(DeviceRecord& record, std::vector<int> sizes = kSizes, int dim = kDim)
      : record_(record), sizes_(std::move(sizes)), dim_(dim) {}

  int dim() const override { return dim_; }
  Element input_element() const override { return Element::f32; }
  std::vector<int> batch_sizes(int) const override { return sizes_; }

  void enqueue(int resolution, int count, const void* input, float* output, CUstream_st* stream, int slot) override {
    record_.enqueued.push_back({resolution, count, slot});
    record_.inputs[{slot, resolution}].insert(input);
    if (static_cast<int>(record_.enqueued.size()) == record_.fail_at) throw Error("the executor failed");
    emulated::enqueue(stream, [=] { embed_by_means(resolution, count, static_cast<const float*>(input), output); });
    check(cudaGetLastError(), "launching the means");
  }

 private:
  DeviceRecord& record_;
  std::vector<int> sizes_;
  int dim_;
};

inline std::vector<Image> mixed(std::size_t count, int seed) {
  std::mt19937 random(seed);
  std::vector<Image> images;
  for (std::size_t i = 0; i < count; ++i) {
    // Mostly small ones: emulated threads are slow.
    const int longest = i % 16 == 5 ? 130 : (i % 4 == 0 ? 28 : 14);
    const int height = 1 + static_cast<int>(random() % longest), width = 1 + static_cast<int>(random() % longest);
    images.push_back(noise(height, width, i % 5 == 3 ? 1 : 3, random));
  }
  return images;
}

/// They must outlive what is returned.
inline std::vector<SourceImage> on_host(const std::vector<Image>& images) {
  std::vector<SourceImage> sources;
  for (const Image& image : images) sources.push_back({image.view(), false});
  return sources;
}

inline std::vector<float> embed(const Pipeline& pipeline, const std::vector<SourceImage>& images,
                                const EmbedOptions& options = {}) {
  std::vector<float> out(images.size() * kDim, -1.0f);
  pipeline.embed(images.data(), images.size(), out.data(), options);
  return out;
}

/// By the engine on the CPU.
inline std::vector<float> expected(const std::vector<SourceImage>& images, const EmbedOptions& options = {},
                                   const EngineOptions& engine_options = {}) {
  Record record;
  const Engine engine(fake_bundle(), std::make_unique<FakeExecutor>(record, 1, 8), engine_options);
  std::vector<ImageView> views;
  for (const SourceImage& image : images) views.push_back(image.view);
  std::vector<float> out(images.size() * kDim);
  engine.embed(views.data(), views.size(), out.data(), options);
  return out;
}

/// Normalisation adds squares in another order than the CPU, in double: no more than the last bit may differ.
inline void expect_same(const std::vector<float>& actual, const std::vector<float>& wanted) {
  ASSERT_EQ(actual.size(), wanted.size());
  for (std::size_t i = 0; i < actual.size(); ++i) ASSERT_FLOAT_EQ(actual[i], wanted[i]) << "value " << i;
}

class PipelineTest : public testing::Test {
 protected:
  void SetUp() override {
    emulated::set_devices(1);
    emulated::set_capability(9);
    emulated::set_recordable(true);
    emulated::set_capacity(std::size_t{1} << 40);
    emulated::set_seed(0);
    emulated::fail_at(0);
  }

  void TearDown() override {
    EXPECT_EQ(emulated::live(), emulated::Live{}) << "something was not given back";
    for (const auto& [place, addresses] : record_.inputs) EXPECT_EQ(addresses.size(), 1U) << "addresses moved";
  }

  Pipeline make(const PipelineOptions& options = {}) {
    return Pipeline(fake_bundle(), std::make_unique<MeansOnDevice>(record_), options);
  }

  DeviceRecord record_;
};

}  // namespace btnet::cuda
