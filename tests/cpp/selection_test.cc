#include "btnet/selection.h"

#include <gtest/gtest.h>

#include <climits>
#include <vector>

#include "btnet/error.h"
#include "scratch.h"

namespace btnet {
namespace {

const std::vector<int> kPaper = {7, 14, 28, 112};

int select(int side, Rounding rounding) { return select_resolution(side, side, kPaper, Indicator::max, rounding); }

struct Row {
  int first, last, resolution;
};

// Every side of the table's rows, from 1 up to well past the largest resolution.
void expect_table(Rounding rounding, const std::vector<Row>& rows) {
  int next = 1;
  for (const Row& row : rows) {
    ASSERT_EQ(row.first, next) << "the table has a gap";
    for (int side = row.first; side <= row.last; ++side) EXPECT_EQ(select(side, rounding), row.resolution) << side;
    next = row.last + 1;
  }
}

TEST(Selection, CeilTable) { expect_table(Rounding::ceil, {{1, 7, 7}, {8, 14, 14}, {15, 28, 28}, {29, 2000, 112}}); }

TEST(Selection, FloorTable) {
  expect_table(Rounding::floor, {{1, 13, 7}, {14, 27, 14}, {28, 111, 28}, {112, 2000, 112}});
}

TEST(Selection, NearTableTiesGoToTheSmaller) {
  expect_table(Rounding::near, {{1, 10, 7}, {11, 21, 14}, {22, 70, 28}, {71, 2000, 112}});
  // Half way between 7 and 13 is 10, between 14 and 28 it is 21: ties.
  EXPECT_EQ(select_resolution(10, 10, {7, 13}, Indicator::max, Rounding::near), 7);
  EXPECT_EQ(select_resolution(21, 21, {14, 28}, Indicator::max, Rounding::near), 14);
}

TEST(Selection, Indicators) {
  const auto ceil = [](int width, int height, Indicator indicator) {
    return select_resolution(width, height, kPaper, indicator, Rounding::ceil);
  };
  EXPECT_EQ(ceil(7, 29, Indicator::max), 112);
  EXPECT_EQ(ceil(29, 7, Indicator::max), 112);
  EXPECT_EQ(ceil(7, 29, Indicator::min), 7);
  EXPECT_EQ(ceil(29, 7, Indicator::min), 7);
  EXPECT_EQ(ceil(7, 21, Indicator::avg), 14);  // (7 + 21) / 2 = 14
  EXPECT_EQ(ceil(7, 22, Indicator::avg), 14);  // 29 / 2, rounded down: 14
  EXPECT_EQ(ceil(8, 22, Indicator::avg), 28);  // 15
}

TEST(Selection, AverageOfEverySmallPairIsTheHalfSumRoundedDown) {
  std::vector<int> every;
  for (int side = 1; side <= 40; ++side) every.push_back(side);
  for (int width = 1; width <= 40; ++width) {
    for (int height = 1; height <= 40; ++height) {
      for (const Rounding rounding : {Rounding::floor, Rounding::near, Rounding::ceil}) {
        EXPECT_EQ(select_resolution(width, height, every, Indicator::avg, rounding), (width + height) / 2);
      }
    }
  }
}

TEST(Selection, OneResolutionServesAll) {
  for (const Indicator indicator : {Indicator::max, Indicator::min, Indicator::avg}) {
    for (const Rounding rounding : {Rounding::floor, Rounding::near, Rounding::ceil}) {
      for (const int side : {1, 27, 28, 29, INT_MAX}) {
        EXPECT_EQ(select_resolution(side, side, {28}, indicator, rounding), 28);
      }
    }
  }
}

TEST(Selection, LargestSizesDoNotOverflow) {
  for (const Rounding rounding : {Rounding::floor, Rounding::near, Rounding::ceil}) {
    for (const Indicator indicator : {Indicator::max, Indicator::min, Indicator::avg}) {
      EXPECT_EQ(select_resolution(INT_MAX, INT_MAX, kPaper, indicator, rounding), 112);
    }
    EXPECT_EQ(select_resolution(INT_MAX, 1, kPaper, Indicator::avg, rounding), 112);
    EXPECT_EQ(select_resolution(1, INT_MAX, kPaper, Indicator::min, rounding), 7);
  }
}

TEST(Selection, Names) {
  EXPECT_EQ(parse_indicator("max"), Indicator::max);
  EXPECT_EQ(parse_indicator("min"), Indicator::min);
  EXPECT_EQ(parse_indicator("avg"), Indicator::avg);
  EXPECT_EQ(parse_rounding("floor"), Rounding::floor);
  EXPECT_EQ(parse_rounding("near"), Rounding::near);
  EXPECT_EQ(parse_rounding("ceil"), Rounding::ceil);
}

TEST(Selection, UnknownNames) {
  for (const std::string wrong : {"", "Max", "max ", "mean", "ceil"}) {
    const std::string message = message_of<InvalidOption>([&] { parse_indicator(wrong); });
    expect_in("indicator", message);
    expect_in("'" + wrong + "'", message);
  }
  for (const std::string wrong : {"", "CEIL", "nearest", "round", "max"}) {
    const std::string message = message_of<InvalidOption>([&] { parse_rounding(wrong); });
    expect_in("rounding", message);
    expect_in("'" + wrong + "'", message);
  }
}

}  // namespace
}  // namespace btnet
