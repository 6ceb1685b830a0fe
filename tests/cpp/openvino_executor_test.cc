#include "openvino/openvino_executor.h"

#include <gtest/gtest.h>

#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "btnet/engine.h"
#include "btnet/error.h"
#include "core/cores.h"
#include "core/sha256.h"
#include "protobuf.h"
#include "scratch.h"

namespace btnet {
namespace {

using Json = nlohmann::json;
using protobuf::bytes;
using protobuf::number;

// ValueInfoProto of a float tensor; -1 is the batch.
std::string value_info(const std::string& name, const std::vector<int>& shape) {
  std::string dims;
  for (const int size : shape) dims += bytes(1, size < 0 ? bytes(2, "N") : number(1, size));
  return bytes(1, name) + bytes(2, bytes(1, number(1, 1) + bytes(2, dims)));
}

std::string op(const std::string& type, const std::string& input, const std::string& output) {
  return bytes(1, bytes(1, input) + bytes(2, output) + bytes(4, type));
}

// The mean of each channel: about the smallest network that takes images.
std::string mean_network(int side, int dim = 3) {
  const std::string graph = op("GlobalAveragePool", "input", "pooled") + op("Flatten", "pooled", "embedding") +
                            bytes(2, "mean") + bytes(11, value_info("input", {-1, 3, side, side})) +
                            bytes(12, value_info("embedding", {-1, dim}));
  return number(1, 8) + bytes(7, graph) + bytes(8, bytes(1, "") + number(2, 17));
}

class OpenVinoExecutorTest : public testing::Test {
 protected:
  void SetUp() override { ::setenv("BTNET_CACHE", (scratch_.path() / "cache").c_str(), 1); }
  void TearDown() override { ::unsetenv("BTNET_CACHE"); }

  std::filesystem::path bundle(int dim = 3) {
    Json model = Json::parse(R"({
      "format": 1, "name": "mean", "arch": "none", "width": 1, "canonical": 14, "resolutions": [7, 14],
      "input": {"color": "rgb", "mean": [100, 100, 100], "std": [10, 10, 10], "filter": "bicubic"},
      "selection": {"indicator": "max", "rounding": "ceil"},
      "graphs": {"f32": {"7": "7.onnx", "14": "14.onnx"}}, "files": {}, "license": "CC0-1.0"
    })");
    model["dim"] = dim;
    for (const int side : {7, 14}) {
      const std::string name = std::to_string(side) + ".onnx", graph = mean_network(side);
      scratch_.write(name, graph);
      model["files"][name] = {{"bytes", graph.size()}, {"sha256", sha256(graph.data(), graph.size())}};
    }
    scratch_.write("model.json", model.dump());
    return scratch_.path();
  }

  EngineOptions options(const std::string& hint = "throughput") {
    EngineOptions made;
    made.hint = hint;
    made.threads = 2;
    made.log = [this](const std::string& message) { log_.push_back(message); };
    return made;
  }

  void expect_means(const Engine& engine) {
    std::vector<std::uint8_t> pixels;
    for (int i = 0; i < 9 * 5; ++i) pixels.insert(pixels.end(), {110, 120, 90});
    const ImageView large{pixels.data(), 9, 5, 3, 15, 3, 1};
    const ImageView small{pixels.data(), 3, 5, 3, 15, 3, 1};
    std::vector<ImageView> images;
    for (int i = 0; i < 50; ++i) images.push_back(i % 3 ? large : small);
    std::vector<float> out(50 * 3);
    engine.embed(images.data(), 50, out.data(), {true, false, {}});
    for (std::size_t i = 0; i < 50; ++i) {
      EXPECT_NEAR(out[3 * i], 2, 1e-5);  // the image and its mirror image, (110 - 100) / 10 each
      EXPECT_NEAR(out[3 * i + 1], 4, 1e-5);
      EXPECT_NEAR(out[3 * i + 2], -2, 1e-5);
    }
  }

  const Scratch scratch_;
  std::vector<std::string> log_;
};

TEST_F(OpenVinoExecutorTest, RunsANetworkCompiledAndFromTheCache) {
  const auto path = bundle();
  for (const char* hint : {"throughput", "latency", "throughput"}) expect_means(Engine(path, options(hint)));
  EXPECT_TRUE(log_.empty());
}

TEST_F(OpenVinoExecutorTest, SlotsAreThreadsOrOneForLatency) {
  const Bundle opened = Bundle::open(bundle());
  const auto slots = [&](const char* hint, int threads) {
    return make_openvino_executor(opened, {7}, {"f32", hint, threads, {}})->slots();
  };
  EXPECT_EQ(slots("throughput", 3), 3);
  EXPECT_EQ(slots("throughput", 0), available_cores());
  EXPECT_EQ(slots("latency", 3), 1);
}

TEST_F(OpenVinoExecutorTest, RunsWithoutACache) {
  scratch_.write("cache", "a file in place of the folder");
  expect_means(Engine(bundle(), options()));
  EXPECT_EQ(log_.size(), 1u) << "one sentence is enough for all networks";
}

TEST_F(OpenVinoExecutorTest, OnlyTheResolutionsAskedFor) {
  EngineOptions seven = options();
  seven.resolutions = {7};
  const auto path = bundle();
  std::filesystem::remove(scratch_.path() / "cache");
  expect_means(Engine(path, seven));
  const auto files = std::filesystem::directory_iterator(scratch_.path() / "cache" / "openvino");
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(OpenVinoExecutorTest, OutputOfAnotherLengthThanTheBundleSays) {
  const auto path = bundle(4);
  expect_in(".onnx", message_of<BundleError>([&] { Engine(path, options()); }));
}

TEST_F(OpenVinoExecutorTest, OptionsThatDoNotExist) {
  const auto path = bundle();
  const auto refused = [&](auto change, const char* name) {
    EngineOptions wrong = options();
    change(wrong);
    expect_in(name, message_of<InvalidOption>([&] { Engine(path, wrong); }));
  };
  refused([](EngineOptions& o) { o.device = "gpu"; }, "device");
  refused([](EngineOptions& o) { o.precision = "f8"; }, "precision");
  refused([](EngineOptions& o) { o.hint = "speed"; }, "hint");
  refused([](EngineOptions& o) { o.threads = -1; }, "threads");
  refused([](EngineOptions& o) { o.resolutions = {28}; }, "resolutions");
  EngineOptions cuda = options();
  cuda.device = "cuda:0";
  expect_in("cuda:0", message_of<BackendUnavailable>([&] { Engine(path, cuda); }));
}

TEST_F(OpenVinoExecutorTest, LeavesTheThreadItsSignalStack) {
  const auto path = bundle();
  std::vector<char> memory(1 << 20);
  stack_t own = {}, first = {}, now = {};
  own.ss_sp = memory.data();
  own.ss_size = memory.size();
  ASSERT_EQ(sigaltstack(&own, &first), 0);
  auto engine = std::make_unique<Engine>(path, options());
  EXPECT_THROW(Engine(bundle(4), options()), BundleError);
  EXPECT_EQ(sigaltstack(nullptr, &now), 0);
  EXPECT_EQ(now.ss_sp, own.ss_sp);
  std::thread([&] { engine.reset(); }).join();
  static std::uintptr_t handled_on;
  struct sigaction handler = {}, before = {};
  handler.sa_handler = [](int) {
    const char here = 0;
    handled_on = reinterpret_cast<std::uintptr_t>(&here);
  };
  handler.sa_flags = SA_ONSTACK;
  ASSERT_EQ(sigaction(SIGUSR1, &handler, &before), 0);
  EXPECT_EQ(raise(SIGUSR1), 0);
  sigaction(SIGUSR1, &before, nullptr);
  const auto start = reinterpret_cast<std::uintptr_t>(memory.data());
  EXPECT_GE(handled_on, start);
  EXPECT_LT(handled_on, start + memory.size());
  ASSERT_EQ(sigaltstack(&first, nullptr), 0);
}

}  // namespace
}  // namespace btnet
