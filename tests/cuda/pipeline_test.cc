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

// By hand, as in engine_test.cc: 100 and 200 made 7 wide begin with 100 or, with the overshoot of bicubic taps,
// with 89.
TEST_F(PipelineTest, TheFilterIsThatOfTheBundle) {
  const std::vector<Image> owners = {{1, 2, 1, {100, 200}}};
  for (const auto& [filter, left] : {std::pair{Filter::bilinear, 0.0f}, {Filter::bicubic, -1.1f}}) {
    Bundle made = fake_bundle();
    made.filter = filter;
    const Pipeline pipeline(made, std::make_unique<MeansOnDevice>(record_));
    EXPECT_NEAR(embed(pipeline, on_host(owners), {false, false, {}})[3], left, 1e-5);
    record_.inputs.clear();  // each pipeline has its own
  }
}

// By hand: 16 pixels of grey take a row of 16 bytes, so an image of 3 rows takes 48.
TEST(BatchLimits, EndABatchAtTheBytesThatAreCopied) {
  const std::vector<std::uint8_t> pixels(16 * 1000);
  const auto image = [&](int height, bool on_device) {
    return SourceImage{{pixels.data(), height, 16, 1, 16, 1, 1}, on_device};
  };
  const BatchLimits limits(100, {{7, {1, 2, 64}}});
  const auto ends = [&](const std::vector<SourceImage>& images, std::size_t begin) {
    return limits.next({images.data(), std::vector<int>(images.size(), 7), false, true, false}, begin).end;
  };
  const std::vector<SourceImage> small(5, image(3, false));
  EXPECT_EQ(ends(small, 0), 2U);
  EXPECT_EQ(ends(small, 2), 4U);
  EXPECT_EQ(ends(small, 4), 5U);
  EXPECT_EQ(ends({image(1000, false), image(3, false)}, 0), 1U) << "one image is always taken";
  EXPECT_EQ(ends(std::vector<SourceImage>(5, image(1000, true)), 0), 5U) << "what is on the device is not copied";
}

TEST(BatchLimits, EndABatchAtTheLargestSizeOfABranchMirrorImagesIncluded) {
  const std::vector<SourceImage> images(9, {{nullptr, 1, 1, 1, 1, 1, 1}, true});
  const BatchLimits limits(100, {{7, {1, 2, 4}}, {14, {1, 2, 8}}});
  const std::vector<int> branches = {7, 14, 7, 14, 14, 7, 7, 7, 7};
  EXPECT_EQ(limits.next({images.data(), branches, false, true, false}, 0).end, 7U);
  EXPECT_EQ(limits.next({images.data(), branches, true, true, false}, 0).end, 5U);
}

TEST(BatchLimits, HalveSizesAndBytesDownToWhatIsWorthIt) {
  const std::vector<std::uint8_t> pixels(16 * 3000);
  const std::vector<SourceImage> images(4, {{pixels.data(), 3000, 16, 1, 16, 1, 1}, false});  // 48,000 bytes each
  const Request request{images.data(), std::vector<int>(4, 7), false, true, false};
  BatchLimits limits(std::size_t{1} << 17, {{7, {1, 2, 4, 8}}});
  EXPECT_EQ(limits.next(request, 0).end, 2U) << "131,072 bytes";
  EXPECT_TRUE(limits.halve());
  EXPECT_EQ(limits.next(request, 0).end, 1U) << "65,536 bytes";
  EXPECT_EQ(limits.largest(7), 4);
  EXPECT_TRUE(limits.halve());
  EXPECT_EQ(limits.largest(7), 2);
  EXPECT_EQ(limits.next(request, 0).end, 1U) << "still 65,536 bytes";
  EXPECT_FALSE(limits.halve()) << "an image and its mirror image stay together";
  EXPECT_EQ(limits.largest(7), 2);
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
