/// The whole pipeline on an emulated device, kernels included, against the engine on the CPU. Both have executors that
/// compute the same means, so that their embeddings are the same bits.

#include "btnet/pipeline.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "btnet/engine.h"
#include "btnet/error.h"
#include "cuda/device.h"
#include "cuda/request.h"
#include "emulated_runtime.h"
#include "fake_executor.h"
#include "forked_child.h"
#include "scratch.h"

namespace btnet::cuda {
namespace {

/// What the tests see of an executor that the pipeline owns.
struct DeviceRecord {
  std::vector<std::array<int, 3>> enqueued;                     // resolution, count, slot
  std::map<std::pair<int, int>, std::set<const void*>> inputs;  // by slot and resolution
  int fail_at = 0;                                              // the call of enqueue, counted from 1, that throws
};

const std::vector<int> kSizes = {1, 2, 3, 8};

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

std::vector<Image> mixed(std::size_t count, int seed) {
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
std::vector<SourceImage> on_host(const std::vector<Image>& images) {
  std::vector<SourceImage> sources;
  for (const Image& image : images) sources.push_back({image.view(), false});
  return sources;
}

std::vector<float> embed(const Pipeline& pipeline, const std::vector<SourceImage>& images,
                         const EmbedOptions& options = {}) {
  std::vector<float> out(images.size() * kDim, -1.0f);
  pipeline.embed(images.data(), images.size(), out.data(), options);
  return out;
}

/// By the engine on the CPU.
std::vector<float> expected(const std::vector<SourceImage>& images, const EmbedOptions& options = {},
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
void expect_same(const std::vector<float>& actual, const std::vector<float>& wanted) {
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

TEST_F(PipelineTest, EqualsTheEngineOnTheCpu) {
  const Pipeline pipeline = make();
  for (const std::size_t count : {0, 1, 2, 57}) {
    const std::vector<Image> images = mixed(count, 3);
    for (const bool flip : {false, true}) {
      for (const bool normalize : {false, true}) {
        SCOPED_TRACE(std::to_string(count) + (flip ? ", flip" : "") + (normalize ? ", normalised" : ""));
        const EmbedOptions options{flip, normalize, {}};
        expect_same(embed(pipeline, on_host(images), options), expected(on_host(images), options));
      }
    }
  }
}

// The first time a size runs as it is, the second time it is recorded, and then replayed.
TEST_F(PipelineTest, GraphsAreRecordedOnceAndReplayed) {
  const Pipeline pipeline = make();
  const std::vector<Image> owners = {plain(7, 7, 130, 150, 200)};
  const std::vector<SourceImage> one = on_host(owners);
  std::vector<std::size_t> calls;
  for (int repeat = 0; repeat < 8; ++repeat) {
    expect_same(embed(pipeline, one), expected(one));
    calls.push_back(record_.enqueued.size());
  }
  // Requests of one batch all begin in the first lane.
  EXPECT_EQ(calls, (std::vector<std::size_t>{1, 2, 2, 2, 2, 2, 2, 2}));
}

TEST_F(PipelineTest, NoOrderOfTheStreamsMakesADifference) {
  const std::vector<Image> images = mixed(24, 4);
  const std::vector<float> wanted = expected(on_host(images));
  for (int seed = 0; seed < 10; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    emulated::set_seed(seed);
    const Pipeline pipeline = make();
    expect_same(embed(pipeline, on_host(images)), wanted);
    expect_same(embed(pipeline, on_host(images)), wanted);
    record_.inputs.clear();
  }
}

TEST_F(PipelineTest, BatchesHaveTheSizesOfTheExecutorAndBothSlotsAreUsed) {
  embed(make(), on_host(mixed(60, 5)));
  std::set<int> slots;
  for (const auto& [resolution, count, slot] : record_.enqueued) {
    EXPECT_TRUE(std::count(kSizes.begin(), kSizes.end(), count)) << count;
    slots.insert(slot);
  }
  EXPECT_EQ(slots, (std::set<int>{0, 1}));
}

TEST_F(PipelineTest, ColourOrderAndAnyStrides) {
  PipelineOptions options;
  options.color = ColorOrder::bgr;
  EngineOptions engine_options;
  engine_options.color = ColorOrder::bgr;
  std::mt19937 random(8);
  const Image image = noise(20, 31, 3, random);
  const ImageView view = image.view();
  const std::vector<SourceImage> images = {
      {view, false},
      {{view.data + 30 * 3 + 2, 20, 31, 3, view.row_stride, -3, -1}, false},  // mirrored, channels reversed
      {{view.data + 19 * view.row_stride, 10, 15, 3, -2 * view.row_stride, 6, 1}, false},  // every second pixel
      {{view.data, 31, 20, 3, 3, view.row_stride, 1}, false},                              // transposed
      {{view.data + 1, 20, 31, 1, view.row_stride, 3, 1}, false},                          // one channel of it
  };
  expect_same(embed(make(options), images), expected(images, {}, engine_options));
}

TEST_F(PipelineTest, OptionsSelectAsOnTheCpu) {
  PipelineOptions options;
  options.resolutions = {112, 14};
  options.indicator = "min";
  options.rounding = "floor";
  const Pipeline pipeline = make(options);
  EXPECT_EQ(pipeline.resolutions(), (std::vector<int>{14, 112}));
  EXPECT_EQ(pipeline.dim(), kDim);
  EXPECT_EQ(pipeline.bundle().name, "fake");
  const std::vector<Image> images = {plain(200, 111, 1, 2, 3), plain(112, 300, 1, 2, 3), plain(3, 3, 1, 2, 3)};
  std::array<int, 3> selected{};
  pipeline.select(on_host(images).data(), images.size(), selected.data());
  EXPECT_EQ(selected, (std::array<int, 3>{14, 112, 14}));
}

/// An image in the memory of the emulated device.
class OnDevice {
 public:
  explicit OnDevice(const Image& image) : view_(image.view()) {
    view_.data = static_cast<const std::uint8_t*>(memory_.reserve(image.pixels.size()));
    const Stream stream;
    cudaMemcpyAsync(memory_.get(), image.pixels.data(), image.pixels.size(), cudaMemcpyHostToDevice, stream.get());
    cudaStreamSynchronize(stream.get());
  }
  SourceImage source() const { return {view_, true}; }

 private:
  DeviceMemory memory_;
  ImageView view_;
};

TEST_F(PipelineTest, ImagesThatAreOnTheDeviceStayThere) {
  const std::vector<Image> images = mixed(9, 6);
  std::vector<SourceImage> sources = on_host(images);
  const std::vector<float> wanted = expected(sources);
  const OnDevice third(images[3]), fifth(images[5]);
  sources[3] = third.source();
  sources[5] = fifth.source();
  EXPECT_EQ(staged_bytes(sources[3]), 0U);
  expect_same(embed(make(), sources), wanted);
}

TEST_F(PipelineTest, AnInvalidImageIsNamedBeforeAnyWork) {
  const Pipeline pipeline = make();
  const std::vector<Image> owners = {plain(7, 7, 1, 2, 3), plain(7, 7, 1, 2, 3)};
  std::vector<SourceImage> images = on_host(owners);
  images[1].view.channels = 4;
  expect_in("images[1] has 4 channels", message_of<InvalidImage>([&] { embed(pipeline, images); }));
  images[1].view.channels = 3;
  images[1].view.data = nullptr;
  expect_in("images[1] has a null pointer", message_of<InvalidImage>([&] { embed(pipeline, images); }));
  EXPECT_TRUE(record_.enqueued.empty());
}

TEST_F(PipelineTest, ExecutorsThatBreakTheirContract) {
  const auto fails = [&](std::vector<int> sizes, int dim = kDim) {
    EXPECT_THROW(Pipeline(fake_bundle(), std::make_unique<MeansOnDevice>(record_, std::move(sizes), dim)),
                 InvalidOption);
  };
  fails({1, 2}, kDim + 1);
  fails({});
  fails({1});
  fails({0, 2});
  fails({4, 2});
  fails({2, 2});
  EXPECT_THROW(Pipeline(fake_bundle(), nullptr), InvalidOption);
}

TEST_F(PipelineTest, WithoutAGpuItSaysWhy) {
  emulated::set_devices(0);
  const std::string message = message_of<BackendUnavailable>([&] { make(); });
  expect_in("device 'cuda:0' is not available: CUDA driver version is insufficient", message);
  expect_in("error 35", message);
  emulated::set_devices(2);
  PipelineOptions options;
  options.device = 2;
  expect_in("'cuda:2' is not available: this machine has 2 CUDA devices",
            message_of<BackendUnavailable>([&] { make(options); }));
  emulated::set_capability(6);
  expect_in("the emulated has compute capability 6.0, expected 7.5", message_of<BackendUnavailable>([&] { make(); }));
}

TEST_F(PipelineTest, TheContextOfTheThreadStays) {
  emulated::set_devices(3);
  ASSERT_EQ(cudaSetDevice(1), cudaSuccess);
  CUcontext first = nullptr;
  ASSERT_EQ(cuCtxGetCurrent(&first), CUDA_SUCCESS);
  PipelineOptions options;
  options.device = 2;
  for (const CUcontext before : {first, CUcontext{}}) {
    ASSERT_EQ(cuCtxSetCurrent(before), CUDA_SUCCESS);
    {
      const Pipeline pipeline = make(options);
      embed(pipeline, on_host(mixed(3, 1)));
    }
    CUcontext current = nullptr;
    ASSERT_EQ(cuCtxGetCurrent(&current), CUDA_SUCCESS);
    EXPECT_EQ(current, before);
    record_.inputs.clear();
  }
}

TEST_F(PipelineTest, NetworksThatCannotBeRecordedRunAsTheyAre) {
  emulated::set_recordable(false);
  std::vector<std::string> log;
  PipelineOptions options;
  options.log = [&](const std::string& text) { log.push_back(text); };
  const Pipeline pipeline = make(options);
  const std::vector<Image> owners = {plain(7, 7, 130, 150, 200)};
  for (int repeat = 0; repeat < 4; ++repeat) expect_same(embed(pipeline, on_host(owners)), expected(on_host(owners)));
  ASSERT_EQ(log.size(), 1U);
  expect_in("the network for resolution 7 runs without a CUDA graph: recording a graph failed", log[0]);
}

TEST_F(PipelineTest, WithoutEnoughMemoryBatchesAreHalved) {
  const std::vector<Image> images = mixed(24, 7);
  const std::vector<float> wanted = expected(on_host(images));
  std::size_t runs = 0, messages = 0, failures = 0;
  for (std::size_t capacity = std::size_t{1} << 16; capacity <= std::size_t{1} << 23; capacity *= 2) {
    SCOPED_TRACE(std::to_string(capacity) + " bytes");
    emulated::set_capacity(capacity);
    PipelineOptions options;
    options.log = [&](const std::string& text) {
      ++messages;
      expect_in("out of memory", text);
      expect_in("half the size", text);
    };
    record_.inputs.clear();  // addresses do move when memory is given back
    const Pipeline pipeline = make(options);
    try {
      expect_same(embed(pipeline, on_host(images)), wanted);
      ++runs;
    } catch (const OutOfMemory&) {
      ++failures;
      // With room again it goes on as if nothing had been.
      emulated::set_capacity(std::size_t{1} << 30);
      expect_same(embed(pipeline, on_host(images)), wanted);
    }
    record_.inputs.clear();
  }
  EXPECT_GT(runs, 0U);
  EXPECT_GT(messages, 0U) << "no capacity made it halve";
  EXPECT_GT(failures, 0U) << "no capacity was too small for one image";
}

// Every call that can fail does, one after the other: clean exceptions, nothing lost, and all is well afterwards.
TEST_F(PipelineTest, AnyCallMayFail) {
  const std::vector<Image> owners = {plain(7, 7, 9, 8, 7), plain(20, 5, 1, 2, 3), plain(3, 9, 4, 5, 6)};
  const std::vector<SourceImage> images = on_host(owners);
  // Three times: cold, recording graphs, replaying them.
  const auto embed_thrice = [&](const Pipeline& pipeline) {
    for (int repeat = 0; repeat < 2; ++repeat) embed(pipeline, images);
    return embed(pipeline, images);
  };
  const std::vector<float> wanted = expected(images);
  emulated::fail_at(0);
  {
    embed_thrice(make());
  }
  const std::size_t calls = emulated::calls();
  ASSERT_GT(calls, 100U);
  std::size_t failures = 0;
  for (std::size_t nth = 1; nth <= calls; ++nth) {
    SCOPED_TRACE("call " + std::to_string(nth));
    record_.inputs.clear();
    emulated::fail_at(nth);
    std::unique_ptr<Pipeline> pipeline;
    try {
      pipeline = std::make_unique<Pipeline>(make());
      expect_same(embed_thrice(*pipeline), wanted);  // an allocation that fails is made up for, and a recording
    } catch (const Error& error) {
      ++failures;
      const std::string message = error.what();
      EXPECT_TRUE(message.find("failed: ") != message.npos || message.find("not available: ") != message.npos)
          << message;
    }
    emulated::fail_at(0);
    record_.inputs.clear();
    if (pipeline) expect_same(embed(*pipeline, images), wanted);
    pipeline.reset();
    record_.inputs.clear();
    ASSERT_EQ(emulated::live(), emulated::Live{});
  }
  EXPECT_GT(failures, calls / 2);
}

TEST_F(PipelineTest, AnExecutorThatThrows) {
  const std::vector<Image> images = mixed(12, 9);
  const std::vector<float> wanted = expected(on_host(images));
  {
    const Pipeline pipeline = make();
    for (int repeat = 0; repeat < 3; ++repeat) embed(pipeline, on_host(images));
  }
  // As many calls as it takes until all sizes have been recorded.
  const int calls = static_cast<int>(record_.enqueued.size());
  int failures = 0;
  for (int nth = 1; nth <= calls; ++nth) {
    SCOPED_TRACE("call " + std::to_string(nth));
    record_ = {};
    record_.fail_at = nth;
    const Pipeline pipeline = make();
    try {  // while it is recorded, it may fail: then it runs as it is
      for (int repeat = 0; repeat < 3; ++repeat) expect_same(embed(pipeline, on_host(images)), wanted);
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "the executor failed");
      ++failures;
    }
    record_ = {};
    for (int repeat = 0; repeat < 2; ++repeat) expect_same(embed(pipeline, on_host(images)), wanted);
  }
  EXPECT_EQ(failures, calls / 2);  // each size runs once as it is, and is recorded once
}

TEST_F(PipelineTest, WhatPollThrowsCancels) {
  const std::vector<Image> owners = mixed(60, 10);
  const std::vector<SourceImage> images = on_host(owners);
  const Pipeline pipeline = make();
  EmbedOptions options;
  options.poll = [] { throw std::runtime_error("enough"); };
  EXPECT_EQ(message_of<std::runtime_error>([&] { embed(pipeline, images, options); }), "enough");
  record_.inputs.clear();
  expect_same(embed(pipeline, images), expected(images));
}

TEST_F(PipelineTest, ThreadsTakeTurns) {
  const Pipeline pipeline = make();
  const std::vector<Image> images = mixed(20, 11);
  const std::vector<float> wanted = expected(on_host(images));
  std::vector<std::vector<float>> results(3);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] { result = embed(pipeline, on_host(images)); });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) expect_same(result, wanted);
}

TEST_F(PipelineTest, AForkedChildGetsAnErrorAndTheParentGoesOn) {
  auto pipeline = std::make_unique<Pipeline>(make());
  const std::vector<Image> images = mixed(5, 12);
  embed(*pipeline, on_host(images));
  EXPECT_TRUE(child_succeeds([&] {
    const bool refused =
        message_of<Error>([&] { embed(*pipeline, on_host(images)); }).find("fork") != std::string::npos;
    const emulated::Live before = emulated::live();
    pipeline.reset();
    return refused && emulated::live() == before;
  }));
  expect_same(embed(*pipeline, on_host(images)), expected(on_host(images)));
}

}  // namespace
}  // namespace btnet::cuda
