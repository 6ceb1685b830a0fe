#include "btnet/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "btnet/error.h"
#include "resample/taps.h"

namespace btnet {
namespace {

constexpr Normalization kNormalization{{127.5f, 127.5f, 127.5f}, {127.5f, 127.5f, 127.5f}};

ImageView view(const std::uint8_t* data, int height, int width, int channels) {
  return {data, height, width, channels, width * channels, channels, 1};
}

/// An image in memory of exactly its size, where AddressSanitizer sees a read past its last byte.
std::unique_ptr<std::uint8_t[]> make_noise(std::size_t bytes) {
  std::mt19937 random(static_cast<unsigned>(bytes));
  auto pixels = std::make_unique<std::uint8_t[]>(bytes);
  for (std::size_t i = 0; i < bytes; ++i) pixels[i] = static_cast<std::uint8_t>(random());
  return pixels;
}

std::vector<std::int32_t> taps_of(Filter filter, int in, int out, int pixel) {
  const Axis axis = make_axis(filter, in, out);
  const Window window = make_window(axis, pixel);
  std::vector<double> weights;
  double sum = 0.0;
  for (int i = 0; i < window.count; ++i) {
    const double x = window.first + i;
    weights.push_back(filter == Filter::bicubic ? tap_weight<Filter::bicubic>(axis, window.center, x)
                                                : tap_weight<Filter::bilinear>(axis, window.center, x));
    sum += weights.back();
  }
  std::vector<std::int32_t> taps;
  for (const double weight : weights) taps.push_back(static_cast<std::int32_t>(fixed_tap(weight, sum)));
  return taps;
}

TEST(Taps, BilinearHalvesAreEqual) {
  EXPECT_EQ(taps_of(Filter::bilinear, 2, 1, 0), (std::vector<std::int32_t>{kTapOne / 2, kTapOne / 2}));
}

TEST(Taps, BilinearSupportGrowsWithTheScale) {
  // 4 -> 2: the triangle reaches 2 pixels from center 1, weights 3/4, 3/4, 1/4, so 3/7, 3/7, 1/7 of 2^22.
  EXPECT_EQ(taps_of(Filter::bilinear, 4, 2, 0), (std::vector<std::int32_t>{1797559, 1797559, 599186}));
}

TEST(Taps, BicubicHasNegativeLobes) {
  // 2 -> 4: center 1/4, weights 0.8671875 and -0.0703125, so 111/102 and -9/102 of 2^22.
  EXPECT_EQ(taps_of(Filter::bicubic, 2, 4, 0), (std::vector<std::int32_t>{4564390, -370086}));
}

TEST(Taps, AnAxisThatKeepsItsSizeIsLeftAlone) {
  EXPECT_EQ(taps_of(Filter::bicubic, 9, 9, 4), (std::vector<std::int32_t>{kTapOne}));
}

TEST(Taps, PassOrderIsThatOfPillow13) {
  EXPECT_FALSE(vertical_first(250, 250, 112, 112));
  EXPECT_FALSE(vertical_first(14, 14, 112, 112));
  EXPECT_FALSE(vertical_first(20, 10, 10, 5));  // 10 rows fewer is not more than twice 5 columns
  EXPECT_TRUE(vertical_first(21, 10, 10, 5));
  EXPECT_TRUE(vertical_first(120, 100, 112, 112));  // columns are added
  EXPECT_FALSE(vertical_first(100, 100, 112, 150));
}

TEST(Taps, SumsAreClippedToBytes) {
  EXPECT_EQ(clip8(kTapHalf - 1), 0);
  EXPECT_EQ(clip8(kTapOne + kTapHalf), 1);
  EXPECT_EQ(clip8(-5 * kTapOne), 0);
  EXPECT_EQ(clip8(300 * kTapOne), 255);
}

class ResamplerOn : public testing::TestWithParam<Simd> {
 protected:
  void SetUp() override {
    static const char* const names[] = {"plain", "avx2", "avx512"};
    const char* name = names[static_cast<int>(GetParam())];
    ::setenv("BTNET_SIMD", name, 1);
    try {
      select_simd();
    } catch (const InvalidOption& error) {
      GTEST_SKIP() << error.what();
    }
  }

  void TearDown() override { ::unsetenv("BTNET_SIMD"); }
};

INSTANTIATE_TEST_SUITE_P(Simd, ResamplerOn, testing::Values(Simd::plain, Simd::avx2, Simd::avx512));

TEST_P(ResamplerOn, IsWhatAHandWorksOut) {
  const std::uint8_t two[] = {0, 255};
  std::uint8_t one[1], four[4];
  Resampler(Filter::bilinear, GetParam()).resize(view(two, 1, 2, 1), 1, 1, one);
  EXPECT_EQ(one[0], 128);
  // Weights 0.8671875 and 0.2265625 of 1.09375 at centers 3/4 and 5/4; overshoot is clipped at both ends.
  Resampler(Filter::bicubic, GetParam()).resize(view(two, 1, 2, 1), 1, 4, four);
  EXPECT_EQ(std::vector<std::uint8_t>(four, four + 4), (std::vector<std::uint8_t>{0, 53, 202, 255}));
}

constexpr int kSides[] = {1, 2, 3, 5, 7, 8, 14, 15, 16, 17, 21, 28, 33, 47, 64, 112};

/// Calls check(in height, in width, out height, out width, channels) for many combinations.
template <class Check>
void for_many_sizes(Check check) {
  std::mt19937 random(7);
  const auto side = [&] { return kSides[random() % std::size(kSides)]; };
  for (int i = 0; i < 400; ++i) check(side(), side(), side(), side(), i % 3 == 0 ? 1 : 3);
}

TEST_P(ResamplerOn, GivesTheBytesOfPlainAndTouchesNothingElse) {
  constexpr std::size_t guard = 64;
  constexpr std::uint8_t canary = 0xA5;
  Resampler resampler(Filter::bicubic, GetParam());
  for_many_sizes([&](int in_height, int in_width, int height, int width, int channels) {
    SCOPED_TRACE(testing::Message() << in_height << "x" << in_width << " -> " << height << "x" << width << ", "
                                    << channels << " channels");
    const auto pixels = make_noise(static_cast<std::size_t>(in_height) * in_width * channels);
    const ImageView image = view(pixels.get(), in_height, in_width, channels);
    const std::size_t bytes = static_cast<std::size_t>(height) * width * channels;

    std::vector<std::uint8_t> expected(bytes), guarded(bytes + 2 * guard, canary);
    Resampler(Filter::bicubic, Simd::plain).resize(image, height, width, expected.data());
    resampler.resize(image, height, width, guarded.data() + guard);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), guarded.begin() + guard));
    EXPECT_EQ(std::count(guarded.begin(), guarded.begin() + guard, canary), static_cast<int>(guard));
    EXPECT_EQ(std::count(guarded.end() - guard, guarded.end(), canary), static_cast<int>(guard));
  });
}

TEST_P(ResamplerOn, NormalizedPlanesTouchNothingElse) {
  constexpr std::size_t guard = 16;
  constexpr float canary = 1e30f;
  Resampler resampler(Filter::bilinear, GetParam());
  for_many_sizes([&](int in_height, int in_width, int height, int width, int channels) {
    SCOPED_TRACE(testing::Message() << in_height << "x" << in_width << " -> " << height << "x" << width);
    const auto pixels = make_noise(static_cast<std::size_t>(in_height) * in_width * channels);
    const ImageView image = view(pixels.get(), in_height, in_width, channels);
    const std::size_t plane = static_cast<std::size_t>(height) * width;
    const bool swap = height % 2 == 0, mirror = width % 2 == 0;

    std::vector<std::uint8_t> bytes(plane * channels);
    resampler.resize(image, height, width, bytes.data());
    std::vector<float> planes(3 * plane + 2 * guard, canary);
    resampler.resize_normalize(image, height, width, kNormalization, swap, mirror, planes.data() + guard);
    EXPECT_EQ(std::count(planes.begin(), planes.begin() + guard, canary), static_cast<int>(guard));
    EXPECT_EQ(std::count(planes.end() - guard, planes.end(), canary), static_cast<int>(guard));
    for (std::size_t i = 0; i < 3 * plane; ++i) {
      const std::size_t c = i / plane, y = i % plane / width, x = i % width;
      const std::size_t source = y * width + (mirror ? width - 1 - x : x);
      const int value = bytes[source * channels + (channels == 1 ? 0 : (swap ? 2 - c : c))];
      ASSERT_EQ(planes[guard + i], (static_cast<float>(value) - 127.5f) * (1.0f / 127.5f)) << "at " << i;
    }
  });
}

TEST_P(ResamplerOn, FollowsNegativeStrides) {
  const int height = 19, width = 23, row = width * 3;
  const auto pixels = make_noise(static_cast<std::size_t>(height) * row);
  std::vector<std::uint8_t> turned(pixels.get(), pixels.get() + height * row);
  std::reverse(turned.begin(), turned.end());  // upside down, mirrored, and its channels swapped
  const ImageView backwards{pixels.get() + height * row - 1, height, width, 3, -row, -3, -1};
  const ImageView flipped{pixels.get() + (height - 1) * row, height, width, 3, -row, 3, 1};

  std::vector<std::uint8_t> expected(12 * 31 * 3), result(expected.size());
  Resampler resampler(Filter::bicubic, GetParam());
  resampler.resize(view(turned.data(), height, width, 3), 12, 31, expected.data());
  resampler.resize(backwards, 12, 31, result.data());
  EXPECT_EQ(result, expected);

  for (int y = 0; y < height; ++y) std::copy_n(pixels.get() + (height - 1 - y) * row, row, turned.begin() + y * row);
  resampler.resize(view(turned.data(), height, width, 3), 12, 31, expected.data());
  resampler.resize(flipped, 12, 31, result.data());
  EXPECT_EQ(result, expected);
}

TEST_P(ResamplerOn, DegradeIsTwoResizes) {
  const auto pixels = make_noise(50 * 40 * 3);
  std::vector<std::uint8_t> small(7 * 7 * 3), expected(112 * 112 * 3), result(expected.size());
  Resampler resampler(Filter::bicubic, GetParam());
  resampler.resize(view(pixels.get(), 50, 40, 3), 7, 7, small.data());
  resampler.resize(view(small.data(), 7, 7, 3), 112, 112, expected.data());
  resampler.degrade(view(pixels.get(), 50, 40, 3), 7, 112, result.data());
  EXPECT_EQ(result, expected);
}

TEST(Resampler, CanBeMoved) {
  const std::uint8_t two[] = {0, 255};
  std::uint8_t one[1];
  Resampler first(Filter::bilinear, Simd::plain);
  Resampler second = std::move(first);
  second.resize(view(two, 1, 2, 1), 1, 1, one);
  EXPECT_EQ(one[0], 128);
}

TEST(Resampler, RefusesWhatIsNoImage) {
  const std::uint8_t pixels[12] = {};
  std::uint8_t out[12];
  float planes[12];
  Resampler resampler(Filter::bicubic);
  for (const ImageView& image : {view(nullptr, 2, 2, 3), view(pixels, 0, 2, 3), view(pixels, 2, -1, 3),
                                 view(pixels, 1, 2, 2), view(pixels, 1, 1, 4)}) {
    EXPECT_THROW(resampler.resize(image, 2, 2, out), InvalidImage);
    EXPECT_THROW(resampler.resize_normalize(image, 2, 2, kNormalization, false, false, planes), InvalidImage);
    EXPECT_THROW(resampler.degrade(image, 1, 2, out), InvalidImage);
  }
}

// All pixels are one byte: strides of 0. Each tap of the longest side is below half of the last fractional bit.
TEST_P(ResamplerOn, TakesTheLongestSideAndNoLonger) {
  const std::uint8_t pixel = 7;
  std::uint8_t out = 1;
  float planes[3];
  Resampler resampler(Filter::bicubic, GetParam());
  resampler.resize({&pixel, 1, kLongestSide, 1, 0, 0, 1}, 1, 1, &out);
  EXPECT_EQ(out, 0);
  for (const int length : {kLongestSide + 1, INT_MAX}) {
    for (const ImageView& strip :
         {ImageView{&pixel, 1, length, 1, 0, 0, 1}, ImageView{&pixel, length, 1, 1, 0, 0, 1}}) {
      EXPECT_THROW(resampler.resize(strip, 1, 1, &out), InvalidImage);
      EXPECT_THROW(resampler.resize_normalize(strip, 1, 1, kNormalization, false, false, planes), InvalidImage);
      EXPECT_THROW(resampler.degrade(strip, 1, 1, &out), InvalidImage);
    }
  }
}

TEST(Resampler, RefusesSidesBelowOne) {
  const std::uint8_t pixels[12] = {};
  std::uint8_t out[12];
  const ImageView image = view(pixels, 2, 2, 3);
  Resampler resampler(Filter::bicubic);
  EXPECT_THROW(resampler.resize(image, 0, 2, out), InvalidOption);
  EXPECT_THROW(resampler.resize(image, 2, -1, out), InvalidOption);
  EXPECT_THROW(resampler.degrade(image, 0, 2, out), InvalidOption);
  EXPECT_THROW(resampler.degrade(image, 2, 0, out), InvalidOption);
}

TEST(Resampler, RefusesInstructionsThatTheCpuLacks) {
  EXPECT_THROW(Resampler(Filter::bicubic, static_cast<Simd>(7)), InvalidOption);
}

TEST(Resampler, NamesAreParsed) {
  EXPECT_EQ(parse_filter("bicubic"), Filter::bicubic);
  EXPECT_EQ(parse_filter("bilinear"), Filter::bilinear);
  EXPECT_THROW(parse_filter("Bicubic"), InvalidOption);
  ::setenv("BTNET_SIMD", "sse", 1);
  EXPECT_THROW(select_simd(), InvalidOption);
  ::setenv("BTNET_SIMD", "plain", 1);
  EXPECT_EQ(select_simd(), Simd::plain);
  ::unsetenv("BTNET_SIMD");
}

}  // namespace
}  // namespace btnet
