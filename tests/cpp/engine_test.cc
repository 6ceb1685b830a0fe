#include "btnet/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "btnet/error.h"
#include "failing_memory.h"
#include "fake_executor.h"
#include "forked_child.h"
#include "scratch.h"

namespace btnet {
namespace {

class EngineTest : public testing::Test {
 protected:
  Engine make(const EngineOptions& options = {}, int slots = 2, int max_batch = 4) {
    return Engine(fake_bundle(), std::make_unique<FakeExecutor>(record_, slots, max_batch), options);
  }

  static std::vector<Embedding> embed(const Engine& engine, const std::vector<Image>& images,
                                      const EmbedOptions& options = {}) {
    const std::vector<ImageView> all = views(images);
    std::vector<float> out(all.size() * kDim, -1.0f);
    engine.embed(all.data(), all.size(), out.data(), options);
    std::vector<Embedding> rows;
    for (std::size_t i = 0; i < all.size(); ++i) rows.emplace_back(&out[i * kDim], &out[i * kDim] + kDim);
    return rows;
  }

  void TearDown() override { EXPECT_EQ(record_.complaints, std::vector<std::string>{}); }

  static EmbedOptions raw() { return {false, false, {}}; }

  Record record_;
};

void expect_close(const Embedding& actual, const Embedding& expected) {
  ASSERT_EQ(actual.size(), expected.size());
  for (std::size_t k = 0; k < actual.size(); ++k) EXPECT_NEAR(actual[k], expected[k], 1e-5) << "component " << k;
}

// (value - mean) / std by channel: mean 100, 110, 120 and std 10, 20, 40.
TEST_F(EngineTest, RawEmbeddingOfAPlainImage) {
  const Engine engine = make();
  expect_close(embed(engine, {plain(5, 6, 130, 150, 200)}, raw())[0], {3, 2, 2, 3, 7});
  expect_close(embed(engine, {plain(300, 200, 90, 110, 40)}, raw())[0], {-1, 0, -2, -1, 112});
}

TEST_F(EngineTest, NormalisedUnlessToldNotTo) {
  const Engine engine = make();
  const double length = std::sqrt(9.0 + 4 + 4 + 9 + 49);
  const float a = static_cast<float>(3 / length), b = static_cast<float>(2 / length);
  expect_close(embed(engine, {plain(7, 7, 130, 150, 200)})[0], {a, b, b, a, static_cast<float>(7 / length)});
}

TEST_F(EngineTest, BgrIsSwapped) {
  EngineOptions options;
  options.color = ColorOrder::bgr;
  expect_close(embed(make(options), {plain(7, 7, 200, 150, 130)}, raw())[0], {3, 2, 2, 3, 7});
}

TEST_F(EngineTest, ABgrBundleTakesRgbSwapped) {
  Bundle made = fake_bundle();
  made.color = ColorOrder::bgr;
  const Engine engine(made, std::make_unique<FakeExecutor>(record_, 1));
  // Its first plane is blue, and the first mean and std are those of that plane.
  expect_close(embed(engine, {plain(7, 7, 200, 150, 130)}, raw())[0], {3, 2, 2, 3, 7});
}

// By hand: made 7 wide, the left column of 100 and 200 is 100 with bilinear taps; bicubic ones overshoot, to 89.
TEST_F(EngineTest, TheFilterIsThatOfTheBundle) {
  for (const auto& [filter, left] : {std::pair{Filter::bilinear, 0.0f}, {Filter::bicubic, -1.1f}}) {
    Bundle made = fake_bundle();
    made.filter = filter;
    const Engine engine(made, std::make_unique<FakeExecutor>(record_, 1));
    EXPECT_NEAR(embed(engine, {{1, 2, 1, {100, 200}}}, raw())[0][3], left, 1e-5);
  }
}

TEST_F(EngineTest, GreyFillsThreeChannels) {
  expect_close(embed(make(), {{9, 8, 1, std::vector<std::uint8_t>(72, 150)}}, raw())[0], {5, 2, 0.75f, 5, 14});
}

// 7 x 7, as large as its branch: resizing changes nothing. The left column is 130, all others 100.
Image with_left_column() {
  Image image = plain(7, 7, 100, 110, 120);
  for (int y = 0; y < 7; ++y) image.pixels[y * 21] = 130;
  return image;
}

TEST_F(EngineTest, FlipSumAddsRawEmbeddingsAndThenNormalises) {
  const Engine engine = make();
  // By hand: mean of the first channel 3 / 7 in both; left column 3 in the image, 0 in its mirror image.
  const Embedding sum = {6.0f / 7, 0, 0, 3, 14};
  expect_close(embed(engine, {with_left_column()}, {true, false, {}})[0], sum);
  double length = 0;
  for (const float value : sum) length += value * value;
  Embedding scaled = sum;
  for (float& value : scaled) value /= static_cast<float>(std::sqrt(length));
  expect_close(embed(engine, {with_left_column()}, {true, true, {}})[0], scaled);
}

TEST_F(EngineTest, FlipKeepsToTheLargestBatch) {
  for (const int max_batch : {2, 3, 5}) {
    const Engine engine = make({}, 1, max_batch);
    embed(engine, std::vector<Image>(23, plain(7, 7, 1, 2, 3)), {true, true, {}});  // TearDown looks at the counts
  }
}

// An executor that breaks its contract must not take the program down with it.
TEST_F(EngineTest, ExecutorsThatBreakTheirContract) {
  EXPECT_THROW(Engine(fake_bundle(), std::make_unique<FakeExecutor>(record_, 1, 4, kDim + 1)), InvalidOption);
  EXPECT_THROW(make({}, 0), InvalidOption) << "no slots";
  EXPECT_THROW(make({}, -1), InvalidOption) << "fewer than no slots";
  EXPECT_THROW(make({}, 1, 1), InvalidOption) << "no room for an image and its mirror image";
  EXPECT_THROW(make({}, 1, 0), InvalidOption) << "no room for an image";
  EXPECT_THROW(Engine(fake_bundle(), nullptr), InvalidOption) << "no executor";
}

class ZeroExecutor final : public Executor {
 public:
  int slots() const override { return 1; }
  int max_batch(int) const override { return 2; }
  int dim() const override { return kDim; }
  void run(int, int count, const float*, float* output, int) override { std::fill_n(output, count * kDim, 0.0f); }
};

TEST_F(EngineTest, AZeroEmbeddingStaysZero) {
  const Engine engine(fake_bundle(), std::make_unique<ZeroExecutor>());
  expect_close(embed(engine, {plain(7, 7, 1, 2, 3)})[0], Embedding(kDim, 0.0f));
}

TEST_F(EngineTest, NoImages) {
  const Engine engine = make();
  engine.embed(nullptr, 0, nullptr);
  engine.select(nullptr, 0, nullptr);
  EXPECT_TRUE(record_.runs.empty());
}

TEST_F(EngineTest, CallersOrder) {
  constexpr unsigned kSeed = 5;
  std::mt19937 random(kSeed);
  for (const int slots : {1, 2, 5}) {
    const Engine engine = make({}, slots);
    std::vector<Image> images;
    for (int i = 0; i < 120; ++i) {
      const int side = std::uniform_int_distribution<int>(1, 60)(random);
      images.push_back(plain(side, 1 + random() % side, i, 2 * i, 255 - i));
    }
    const auto rows = embed(engine, images, raw());
    for (int i = 0; i < 120; ++i) {
      const int side = images[i].height;  // the longer one
      const float resolution = side <= 7 ? 7 : side <= 14 ? 14 : side <= 28 ? 28 : 112;
      const float red = (i - 100) / 10.0f;
      expect_close(rows[i], {red, (2 * i - 110) / 20.0f, (255 - i - 120) / 40.0f, red, resolution});
    }
  }
}

TEST_F(EngineTest, SingleAndBatchAreTheSame) {
  constexpr unsigned kSeed = 6;
  std::mt19937 random(kSeed);
  const Engine engine = make();
  std::vector<Image> images;
  for (int i = 0; i < 40; ++i) images.push_back(noise(1 + random() % 50, 1 + random() % 50, i % 3 ? 3 : 1, random));
  for (const bool flip : {false, true}) {
    const auto batch = embed(engine, images, {flip, true, {}});
    for (std::size_t i = 0; i < images.size(); ++i) {
      EXPECT_EQ(embed(engine, {images[i]}, {flip, true, {}})[0], batch[i]);
    }
  }
}

TEST_F(EngineTest, StridedViews) {
  constexpr unsigned kSeed = 9;
  std::mt19937 random(kSeed);
  const Image image = noise(20, 30, 3, random);
  // Every second row upwards, columns from right to left, channels backwards; and the same pixels, copied.
  const ImageView strided{image.pixels.data() + 19 * 90 + 29 * 3 + 2, 10, 30, 3, -180, -3, -1};
  Image copied{10, 30, 3, {}};
  for (int y = 0; y < 10; ++y) {
    for (int x = 0; x < 30; ++x) {
      for (int c = 0; c < 3; ++c) copied.pixels.push_back(image.pixels[(19 - 2 * y) * 90 + (29 - x) * 3 + 2 - c]);
    }
  }
  const Engine engine = make();
  Embedding out(kDim);
  engine.embed(&strided, 1, out.data());
  EXPECT_EQ(out, embed(engine, {copied})[0]);
}

TEST_F(EngineTest, SelectTakesTheOptions) {
  const Image image = plain(10, 30, 0, 0, 0);
  const ImageView view = image.view();
  const auto selected = [&](const EngineOptions& options) {
    int resolution = 0;
    make(options).select(&view, 1, &resolution);
    return resolution;
  };
  EngineOptions options;
  EXPECT_EQ(selected(options), 112);
  options.rounding = "floor";
  EXPECT_EQ(selected(options), 28);
  options.indicator = "min";
  EXPECT_EQ(selected(options), 7);
  options.rounding = "";  // as the bundle says: ceil
  EXPECT_EQ(selected(options), 14);
  options.resolutions = {112, 28, 28};
  EXPECT_EQ(selected(options), 28);
}

TEST_F(EngineTest, ASubsetOfTheResolutions) {
  EngineOptions options;
  options.resolutions = {112, 14, 14};
  const Engine engine = make(options);
  EXPECT_EQ(engine.resolutions(), (std::vector<int>{14, 112}));
  EXPECT_EQ(embed(engine, {plain(3, 3, 0, 0, 0)}, raw())[0][4], 14);
  options.resolutions = {7};
  EXPECT_EQ(embed(make(options), {plain(500, 3, 0, 0, 0)}, raw())[0][4], 7);
}

TEST_F(EngineTest, OptionsThatDoNotExist) {
  EngineOptions options;
  options.resolutions = {7, 56};
  expect_in("resolutions", message_of<InvalidOption>([&] { make(options); }));
  options = {};
  options.indicator = "mean";
  expect_in("indicator", message_of<InvalidOption>([&] { make(options); }));
  options = {};
  options.rounding = "up";
  expect_in("rounding", message_of<InvalidOption>([&] { make(options); }));
}

TEST_F(EngineTest, InvalidImagesAreNamedBeforeAnyWork) {
  const Engine engine = make();
  const Image good = plain(7, 7, 0, 0, 0);
  const ImageView whole = good.view();
  const auto with = [&](auto change) {
    ImageView bad = whole;
    change(bad);
    std::vector<ImageView> images(50, whole);
    images[37] = bad;
    std::vector<float> out(50 * kDim);
    std::vector<int> selected(50);
    expect_in("images[37]", message_of<InvalidImage>([&] { engine.embed(images.data(), 50, out.data()); }));
    expect_in("images[37]", message_of<InvalidImage>([&] { engine.select(images.data(), 50, selected.data()); }));
  };
  with([](ImageView& image) { image.height = 0; });
  with([](ImageView& image) { image.width = 0; });
  with([](ImageView& image) { image.height = -1; });
  with([](ImageView& image) { image.channels = 4; });
  with([](ImageView& image) { image.channels = 2; });
  with([](ImageView& image) { image.channels = 0; });
  with([](ImageView& image) { image.data = nullptr; });
  EXPECT_TRUE(record_.runs.empty());
}

TEST_F(EngineTest, AFailureReachesTheCallerAndTheEngineStaysUsable) {
  for (const int slots : {1, 3}) {
    const Engine engine = make({}, slots);
    const std::vector<Image> images(40, plain(7, 7, 130, 150, 200));
    for (const int run : {1, 4}) {
      record_.runs.clear();
      record_.fail_at = run;
      EXPECT_EQ(message_of<std::runtime_error>([&] { embed(engine, images); }), "the executor failed");
      record_.fail_at = 0;
      for (const Embedding& row : embed(engine, images, raw())) expect_close(row, {3, 2, 2, 3, 7});
    }
  }
}

TEST_F(EngineTest, SeveralThreadsAtOnce) {
  constexpr unsigned kSeed = 12;
  std::mt19937 random(kSeed);
  const Engine engine = make({}, 3);
  std::vector<Image> images;
  for (int i = 0; i < 60; ++i) images.push_back(noise(1 + random() % 40, 1 + random() % 40, 3, random));
  const auto alone = embed(engine, images, {true, true, {}});
  std::vector<std::vector<Embedding>> found(4);
  std::vector<std::thread> threads;
  for (auto& own : found) threads.emplace_back([&] { own = embed(engine, images, {true, true, {}}); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& own : found) EXPECT_EQ(own, alone);
}

/// Takes long enough for a poll.
class SlowExecutor final : public Executor {
 public:
  explicit SlowExecutor(std::atomic<int>& runs) : runs_(runs) {}
  int slots() const override { return 1; }
  int max_batch(int) const override { return 2; }
  int dim() const override { return kDim; }
  void run(int, int count, const float*, float* output, int) override {
    ++runs_;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    std::fill_n(output, count * kDim, 1.0f);
  }

 private:
  std::atomic<int>& runs_;
};

TEST_F(EngineTest, WhatPollThrowsComesOut) {
  std::atomic<int> runs{0};
  const Engine engine(fake_bundle(), std::make_unique<SlowExecutor>(runs));
  const std::vector<Image> images(400, plain(7, 7, 1, 1, 1));
  EXPECT_THROW(embed(engine, images, {false, true, [] { throw std::logic_error("interrupted"); }}), std::logic_error);
  EXPECT_LT(runs, 200) << "nothing was cancelled";
  EXPECT_EQ(embed(engine, {images[0]}, raw())[0], Embedding(kDim, 1.0f));
}

// A large chunk for which there is no memory, after a small one in the same worker and before another.
TEST_F(EngineTest, GoesOnAfterMemoryThatWasNotThere) {
  const Engine engine = make({}, 1);
  const std::vector<Image> small = {plain(7, 7, 130, 150, 200)}, large = {plain(200, 200, 130, 150, 200)};
  for (int round = 0; round < 2; ++round) {
    expect_close(embed(engine, small, raw())[0], {3, 2, 2, 3, 7});
    FailingMemory::refuses = true;
    EXPECT_THROW(embed(engine, large), std::bad_alloc);
    FailingMemory::refuses = false;
  }
  expect_close(embed(engine, small, raw())[0], {3, 2, 2, 3, 7});
  expect_close(embed(engine, large, raw())[0], {3, 2, 2, 3, 112});
}

TEST_F(EngineTest, Moves) {
  Engine first = make();
  Engine second = std::move(first);
  EXPECT_EQ(second.dim(), kDim);
  EXPECT_EQ(second.bundle().name, "fake");
  Engine third = make();
  third = std::move(second);
  expect_close(embed(third, {plain(7, 7, 130, 150, 200)}, raw())[0], {3, 2, 2, 3, 7});
}

TEST_F(EngineTest, AForkedChildGetsAnErrorAndTheParentGoesOn) {
  const Engine engine = make();
  const std::vector<Image> images = {plain(7, 7, 130, 150, 200)};
  embed(engine, images);
  EXPECT_TRUE(child_succeeds([&] {
    try {
      embed(engine, images);
    } catch (const Error& error) {
      return std::string(error.what()).find("fork") != std::string::npos;
    }
    return false;
  }));
  expect_close(embed(engine, images, raw())[0], {3, 2, 2, 3, 7});
}

TEST_F(EngineTest, AForkedChildMayDestroyTheEngine) {
  auto engine = std::make_unique<Engine>(make());
  EXPECT_TRUE(child_succeeds([&] {
    engine.reset();
    return true;
  }));
  expect_close(embed(*engine, {plain(7, 7, 130, 150, 200)}, raw())[0], {3, 2, 2, 3, 7});
}

TEST_F(EngineTest, AForkedChildMayReplaceTheEngine) {
  Engine engine = make();
  Record own;
  EXPECT_TRUE(child_succeeds([&] {
    engine = Engine(fake_bundle(), std::make_unique<FakeExecutor>(own, 2));
    return embed(engine, {plain(7, 7, 130, 150, 200)}, raw())[0][4] == 7;
  }));
}

}  // namespace
}  // namespace btnet
