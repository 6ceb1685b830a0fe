/// What the pipeline does when something fails: arguments, memory, calls of the device, executors, other processes.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "btnet/error.h"
#include "btnet/pipeline.h"
#include "forked_child.h"
#include "pipeline_fixture.h"
#include "scratch.h"

namespace btnet::cuda {
namespace {

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

// Whatever the current device of the thread is: none, as in a new thread, or another one.
TEST_F(PipelineTest, EverythingIsOnItsDevice) {
  emulated::set_devices(3);
  PipelineOptions options;
  options.device = 2;
  const Pipeline pipeline = make(options);
  const std::vector<Image> images = mixed(9, 13);
  const std::vector<float> wanted = expected(on_host(images));
  for (const int current : {-1, 1}) {
    std::vector<float> actual;
    std::thread([&] {
      if (current >= 0) cudaSetDevice(current);
      for (int repeat = 0; repeat < 3; ++repeat) actual = embed(pipeline, on_host(images));
    }).join();
    expect_same(actual, wanted);
  }
  EXPECT_GT(emulated::blocks_on(2), 0U);
  EXPECT_EQ(emulated::blocks_on(2), emulated::live().device_blocks);
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
      if (text.find("one batch at a time") == std::string::npos) expect_in("half the size", text);
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

/// Keeps a block of device memory for each branch and slot, as large as its largest batch so far needs.
class Hoarder final : public DeviceExecutor {
 public:
  static constexpr std::size_t kBytes = 1 << 16;  // for each image of a batch

  explicit Hoarder(DeviceRecord& record) : executor_(record) {}
  int dim() const override { return executor_.dim(); }
  Element input_element() const override { return executor_.input_element(); }
  std::vector<int> batch_sizes(int resolution) const override { return executor_.batch_sizes(resolution); }
  void enqueue(int resolution, int count, const void* input, float* output, CUstream_st* stream, int slot) override {
    blocks_[{resolution, slot}].reserve(count * kBytes);
    executor_.enqueue(resolution, count, input, output, stream, slot);
  }
  void release_memory() override { blocks_.clear(); }

 private:
  MeansOnDevice executor_;
  std::map<std::pair<int, int>, DeviceMemory> blocks_;
};

// What a batch of one branch has taken is there for the next one, of another branch.
TEST_F(PipelineTest, MemoryOfNetworksIsGivenBack) {
  emulated::set_capacity(8 * Hoarder::kBytes + (std::size_t{1} << 16));
  const Pipeline pipeline(fake_bundle(), std::make_unique<Hoarder>(record_));
  const std::vector<Image> small(8, plain(7, 7, 130, 150, 200)), larger(8, plain(14, 14, 30, 50, 20));
  for (const std::vector<Image>* images : {&small, &larger}) {
    record_ = {};
    expect_same(embed(pipeline, on_host(*images)), expected(on_host(*images)));
    int largest = 0;
    for (const auto& [resolution, count, slot] : record_.enqueued) largest = std::max(largest, count);
    EXPECT_GT(largest, 1) << "halved until a batch of one fits beside what the other branch keeps";
  }
  record_ = {};
}

TEST_F(PipelineTest, WithoutMemoryForTwoBatchesThereIsOneAtATime) {
  // All alike, so that there are capacities that are enough for one, and too little for two.
  const std::vector<Image> images(6, plain(100, 100, 130, 150, 200));
  const std::vector<float> wanted = expected(on_host(images));
  std::size_t runs = 0;
  for (std::size_t capacity = std::size_t{1} << 16; runs == 0 && capacity <= std::size_t{1} << 23;
       capacity += capacity / 4) {
    emulated::set_capacity(capacity);
    std::vector<std::string> log;
    PipelineOptions options;
    options.log = [&](const std::string& text) { log.push_back(text); };
    const Pipeline pipeline = make(options);
    try {
      for (int repeat = 0; repeat < 2; ++repeat) expect_same(embed(pipeline, on_host(images)), wanted);
      ++runs;
      ASSERT_FALSE(log.empty());
      expect_in("; going on with one batch at a time", log.back());
    } catch (const OutOfMemory&) {
    }
    record_.inputs.clear();  // addresses do move when memory is given back
  }
  EXPECT_EQ(runs, 1U);
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
