/// What the pipeline gives: the engine's embeddings, whatever the order of its work.

#include "btnet/pipeline.h"

#include <gtest/gtest.h>

#include <array>
#include <future>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/device.h"
#include "cuda/request.h"
#include "pipeline_fixture.h"

namespace btnet::cuda {
namespace {

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

TEST_F(PipelineTest, WhoWaitsForATurnPolls) {
  const Pipeline pipeline = make();
  const std::vector<Image> images = mixed(24, 7);
  const std::vector<SourceImage> sources = on_host(images);
  const std::vector<float> wanted = expected(sources);
  std::promise<void> begun, polled;
  std::thread first([&] {
    bool waited = false;
    const auto wait_once = [&] {
      if (std::exchange(waited, true)) return;
      begun.set_value();
      polled.get_future().wait();
    };
    expect_same(embed(pipeline, sources, {false, true, wait_once}), wanted);
  });
  begun.get_future().wait();
  const auto interrupt = [] { throw std::logic_error("interrupted"); };
  EXPECT_THROW(embed(pipeline, sources, {false, true, interrupt}), std::logic_error) << "before it had its turn";
  polled.set_value();
  first.join();
  expect_same(embed(pipeline, sources), wanted);
}

TEST_F(PipelineTest, ACallFromWithinACallIsAnErrorAndNoDeadlock) {
  const Pipeline pipeline = make();
  const std::vector<Image> images = mixed(3, 8);
  const std::vector<SourceImage> sources = on_host(images);
  EXPECT_THROW(embed(pipeline, sources, {false, true, [&] { embed(pipeline, sources); }}), Error);
  record_.inputs.clear();  // after a failure they may move
  expect_same(embed(pipeline, sources), expected(sources));
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

}  // namespace
}  // namespace btnet::cuda
