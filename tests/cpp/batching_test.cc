#include "core/batching.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <vector>

namespace btnet {
namespace {

const std::vector<int> kResolutions = {7, 14, 28, 112};

std::vector<std::size_t> sizes(const Plan& plan) {
  std::vector<std::size_t> found;
  for (const Chunk& chunk : plan.chunks) found.push_back(chunk.end - chunk.begin);
  return found;
}

TEST(Batching, NothingGivesNothing) {
  const Plan plan = plan_chunks({}, [](int) { return 4; }, 2);
  EXPECT_TRUE(plan.order.empty());
  EXPECT_TRUE(plan.chunks.empty());
}

TEST(Batching, OneImage) {
  const Plan plan = plan_chunks({28}, [](int) { return 4; }, 8);
  EXPECT_EQ(plan.order, std::vector<std::size_t>{0});
  ASSERT_EQ(plan.chunks.size(), 1u);
  EXPECT_EQ(plan.chunks[0].resolution, 28);
}

TEST(Batching, ByHand) {
  // Seven images: branch 112 has 0, 2, 3, 6 and branch 7 has 1, 4, 5.
  const Plan plan = plan_chunks({112, 7, 112, 112, 7, 7, 112}, [](int r) { return r == 112 ? 3 : 16; }, 2);
  EXPECT_EQ(plan.order, (std::vector<std::size_t>{0, 2, 3, 6, 1, 4, 5}));
  // 4 images, at most 3 each: two chunks of 2. 3 images, two workers: a chunk of 1 and a chunk of 2.
  EXPECT_EQ(sizes(plan), (std::vector<std::size_t>{2, 2, 1, 2}));
}

TEST(Batching, FewImagesAreSpreadOverTheWorkers) {
  EXPECT_EQ(
      sizes(plan_chunks(std::vector<int>(8, 7), [](int) { return 100; }, 4)), (std::vector<std::size_t>{2, 2, 2, 2}));
  EXPECT_EQ(
      sizes(plan_chunks(std::vector<int>(3, 7), [](int) { return 100; }, 4)), (std::vector<std::size_t>{1, 1, 1}));
}

void check(const Plan& plan, const std::vector<int>& branch_of, const std::map<int, int>& most, int workers) {
  // Each image once.
  std::vector<std::size_t> every(branch_of.size());
  std::iota(every.begin(), every.end(), std::size_t{0});
  std::vector<std::size_t> sorted = plan.order;
  std::sort(sorted.begin(), sorted.end());
  ASSERT_EQ(sorted, every);

  // Chunks cover the order without a gap, are of one branch, and keep the caller's order within it.
  std::size_t next = 0;
  std::map<int, std::vector<std::size_t>> chunk_sizes;
  std::map<int, std::size_t> last_of;
  int previous = 1 << 20;
  for (const Chunk& chunk : plan.chunks) {
    ASSERT_EQ(chunk.begin, next);
    ASSERT_LT(chunk.begin, chunk.end);
    ASSERT_LE(chunk.resolution, previous) << "high resolutions come first";
    for (std::size_t k = chunk.begin; k < chunk.end; ++k) {
      ASSERT_EQ(branch_of[plan.order[k]], chunk.resolution);
      const auto before = last_of.find(chunk.resolution);
      if (before != last_of.end()) {
        ASSERT_LT(before->second, plan.order[k]);
      }
      last_of[chunk.resolution] = plan.order[k];
    }
    chunk_sizes[chunk.resolution].push_back(chunk.end - chunk.begin);
    next = chunk.end;
    previous = chunk.resolution;
  }
  ASSERT_EQ(next, branch_of.size());

  for (const auto& [resolution, found] : chunk_sizes) {
    const auto [least, largest] = std::minmax_element(found.begin(), found.end());
    const std::size_t images = std::accumulate(found.begin(), found.end(), std::size_t{0});
    ASSERT_LE(*largest, static_cast<std::size_t>(most.at(resolution)));
    ASSERT_LE(*largest - *least, 1u) << "chunks of a branch are of nearly equal size";
    ASSERT_GE(found.size(), std::min<std::size_t>(images, workers)) << "no worker idles";
    // No more chunks than it takes.
    const std::size_t needed = (images + most.at(resolution) - 1) / most.at(resolution);
    ASSERT_EQ(found.size(), std::max(needed, std::min<std::size_t>(images, workers)));
  }
}

TEST(Batching, RandomBatches) {
  constexpr unsigned kSeed = 20231;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 random(kSeed);
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  for (int trial = 0; trial < 2000; ++trial) {
    SCOPED_TRACE("trial " + std::to_string(trial));
    std::map<int, int> most;
    for (const int resolution : kResolutions) most[resolution] = draw(1, 20);
    const int workers = draw(1, 12);
    std::vector<int> branch_of(draw(0, 150));
    const int branches = draw(1, 4);
    for (int& branch : branch_of) branch = kResolutions[draw(0, branches - 1)];
    const Plan plan = plan_chunks(branch_of, [&](int resolution) { return most.at(resolution); }, workers);
    check(plan, branch_of, most, workers);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace btnet
