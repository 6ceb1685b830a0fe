#include "btnet/bundle.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "btnet/error.h"
#include "core/sha256.h"
#include "protobuf.h"
#include "scratch.h"

namespace btnet {
namespace {

using Json = nlohmann::json;

const std::string kWeights(64, 'w');

std::string graph_with(const std::string& location, const std::string& more = "") {
  return protobuf::model(protobuf::initializer(protobuf::external_tensor(location, more)));
}

/// The smallest bundle: two resolutions whose graphs have a tensor each in weights.bin.
class BundleTest : public testing::Test {
 protected:
  BundleTest() {
    model_ = Json::parse(R"({
      "format": 1, "name": "tiny", "arch": "res18", "width": 0.25, "dim": 8, "canonical": 112, "resolutions": [7, 112],
      "input": {"color": "bgr", "mean": [127.5, 100, 90.25], "std": [127.5, 50, 60], "filter": "bilinear"},
      "selection": {"indicator": "avg", "rounding": "near"},
      "graphs": {"f32": {"7": "branch_7.onnx", "112": "branch_112.onnx"}},
      "files": {}, "license": "CC0-1.0", "thresholds": {}, "training": {}
    })");
    add("branch_7.onnx", graph_with("weights.bin"));
    add("branch_112.onnx",
        graph_with("weights.bin", protobuf::external_data("offset", "32") + protobuf::external_data("length", "32")));
    add("weights.bin", kWeights);
  }

  std::filesystem::path folder() const { return scratch_.path(); }

  void add(const std::string& name, const std::string& content) {
    scratch_.write(name, content);
    model_["files"][name] = {{"bytes", content.size()}, {"sha256", sha256(content.data(), content.size())}};
  }

  Bundle open() {
    scratch_.write("model.json", model_.dump());
    return Bundle::open(folder());
  }

  std::string failure() {
    return message_of<BundleError>([this] { open(); });
  }

  const Scratch scratch_;
  Json model_;
};

TEST_F(BundleTest, HoldsWhatModelJsonSays) {
  const Bundle bundle = open();
  EXPECT_EQ(bundle.path, folder());
  EXPECT_EQ(bundle.name, "tiny");
  EXPECT_EQ(bundle.arch, "res18");
  EXPECT_EQ(bundle.license, "CC0-1.0");
  EXPECT_EQ(bundle.width, 0.25);
  EXPECT_EQ(bundle.dim, 8);
  EXPECT_EQ(bundle.canonical, 112);
  EXPECT_EQ(bundle.resolutions, (std::vector<int>{7, 112}));
  EXPECT_EQ(bundle.color, ColorOrder::bgr);
  EXPECT_EQ(bundle.normalization.mean, (std::array<float, 3>{127.5f, 100.0f, 90.25f}));
  EXPECT_EQ(bundle.normalization.std, (std::array<float, 3>{127.5f, 50.0f, 60.0f}));
  EXPECT_EQ(bundle.filter, Filter::bilinear);
  EXPECT_EQ(bundle.indicator, Indicator::avg);
  EXPECT_EQ(bundle.rounding, Rounding::near);
  EXPECT_EQ(bundle.files.size(), 3u);
  EXPECT_EQ(bundle.files.at("weights.bin").bytes, kWeights.size());
  EXPECT_EQ(bundle.metadata, read_all(folder() / "model.json"));
  EXPECT_EQ(bundle.digest, sha256(bundle.metadata.data(), bundle.metadata.size()));
  EXPECT_EQ(bundle.graph("f32", 7), folder() / "branch_7.onnx");
  bundle.verify();
}

TEST_F(BundleTest, GraphsThatItDoesNotHave) {
  const Bundle bundle = open();
  expect_in("int8", message_of<BundleError>([&] { bundle.graph("int8", 7); }));
  expect_in("14", message_of<BundleError>([&] { bundle.graph("f32", 14); }));
}

TEST_F(BundleTest, NoBundleThere) {
  const auto open_at = [](const std::filesystem::path& path) {
    const std::string message = message_of<BundleError>([&] { Bundle::open(path); });
    expect_in(path.string(), message);
  };
  open_at(folder() / "nothing");
  open_at(folder() / "weights.bin");  // a file
  open_at(folder() / "weights.bin" / "more");
  open_at(folder());                          // no model.json yet
  open_at(folder() / std::string(300, 'x'));  // longer than a file name may be
  std::filesystem::create_symlink("loop", folder() / "loop");
  open_at(folder() / "loop");
  message_of<BundleError>([] { Bundle::open(""); });
}

TEST_F(BundleTest, MissingFields) {
  const Json whole = model_;
  for (const char* key : {"format", "name", "arch", "width", "dim", "canonical", "resolutions", "input", "selection",
                          "graphs", "files", "license"}) {
    model_ = whole;
    model_.erase(key);
    expect_in("'" + std::string(key) + "'", failure());
  }
}

TEST_F(BundleTest, ModelJsonThatIsNone) {
  open();
  for (const std::string text : {"", "{", "[]", "null", "7", "\"text\"", "{\"format\": 1,}", "\xff\xfe", "{} {}"}) {
    scratch_.write("model.json", text);
    expect_in("model.json", message_of<BundleError>([&] { Bundle::open(folder()); }));
  }
  // Python's reader refuses a byte-order mark, other readers skip it.
  scratch_.write("model.json", "\xEF\xBB\xBF" + model_.dump());
  expect_in("model.json", message_of<BundleError>([&] { Bundle::open(folder()); }));
}

TEST_F(BundleTest, FormatsOfTheFuture) {
  for (const Json& format : {Json(2), Json(0), Json("1"), Json(true), Json(nullptr), Json::array({1})}) {
    model_["format"] = format;
    expect_in("format", failure());
  }
}

// Whatever stands where something else should must be refused, and being deep is no way round that.
TEST_F(BundleTest, DeeplyNestedValues) {
  const Json whole = model_;
  const std::string deep = std::string(200000, '[') + std::string(200000, ']');
  for (const char* key : {"format", "name", "width", "dim", "resolutions", "input", "graphs", "files"}) {
    model_ = whole;
    model_[key] = "@";
    std::string text = model_.dump();
    text.replace(text.find("\"@\""), 3, deep);
    scratch_.write("model.json", text);
    expect_in("model.json", message_of<BundleError>([&] { Bundle::open(folder()); }));
  }
}

TEST_F(BundleTest, NamesThatLeaveTheBundle) {
  const Scratch outside;
  const std::string secret = outside.write("secret", kWeights).string();
  const Json entry = model_["files"]["weights.bin"];
  for (const std::string& name :
       {secret, std::string("../secret"), std::string(".."), std::string("."), std::string("a/../weights.bin"),
        std::string("./weights.bin"), std::string(), std::string("a\\b"), std::string("weights.bin\0x", 13),
        std::string("model.json"), std::string(".weights.bin"), std::string("file:weights.bin")}) {
    model_["files"][name] = entry;
    expect_in("model.json", failure());
    model_["files"].erase(name);
  }
}

TEST_F(BundleTest, FilesThatAreMissingOrOfAnotherSize) {
  open();
  for (const char* name : {"branch_7.onnx", "branch_112.onnx", "weights.bin"}) {
    const std::string content = read_all(folder() / name);
    std::filesystem::remove(folder() / name);
    expect_in(name, failure());
    scratch_.write(name, content.substr(1));
    expect_in(name, failure());
    scratch_.write(name, content + "x");
    expect_in(name, failure());
    scratch_.write(name, "");
    expect_in(name, failure());
    scratch_.write(name, content);
    open();
  }
}

TEST_F(BundleTest, FilesThatAreNoFiles) {
  const Scratch outside;
  outside.write("weights.bin", kWeights);
  const std::filesystem::path weights = folder() / "weights.bin";
  std::filesystem::remove(weights);
  std::filesystem::create_symlink(outside.path() / "weights.bin", weights);
  expect_in("weights.bin", failure());
  std::filesystem::remove(weights);
  ASSERT_EQ(::mkfifo(weights.c_str(), 0600), 0);
  expect_in("weights.bin", failure());
  std::filesystem::remove(weights);
  std::filesystem::create_directory(weights);
  expect_in("weights.bin", failure());
}

TEST_F(BundleTest, ModelJsonMayNotBeALink) {
  open();
  const Scratch outside;
  std::filesystem::copy(folder() / "model.json", outside.path() / "model.json");
  std::filesystem::remove(folder() / "model.json");
  std::filesystem::create_symlink(outside.path() / "model.json", folder() / "model.json");
  expect_in("model.json", message_of<BundleError>([&] { Bundle::open(folder()); }));
}

TEST_F(BundleTest, TheFolderMayBeALink) {
  open();
  const Scratch elsewhere;
  std::filesystem::create_directory_symlink(folder(), elsewhere.path() / "link.btnet");
  EXPECT_EQ(Bundle::open(elsewhere.path() / "link.btnet").name, "tiny");
}

TEST_F(BundleTest, ExternalDataStaysInTheBundle) {
  const Scratch outside;
  outside.write("secret", kWeights);
  for (const std::string& location :
       {(outside.path() / "secret").string(), "../" + outside.path().filename().string() + "/secret",
        std::string("other.bin"), std::string("./weights.bin"), std::string("*/_ORT_MEM_ADDR_/*"), std::string(),
        std::string("model.json"), std::string("weights.bin\0", 12)}) {
    add("branch_7.onnx", graph_with(location));
    expect_in("branch_7.onnx", failure());
  }
}

TEST_F(BundleTest, ExternalDataStaysInItsFile) {
  struct Place {
    const char *offset, *length;
  };
  for (const Place place : {Place{"0", "65"},
                            {"65", "0"},
                            {"64", "1"},
                            {"1", "64"},
                            {"999999999999999999", "1"},
                            {"1", "999999999999999999"},
                            {"999999999999999999", "999999999999999999"}}) {
    add("branch_7.onnx", graph_with("weights.bin", protobuf::external_data("offset", place.offset) +
                                                       protobuf::external_data("length", place.length)));
    const std::string message = failure();
    expect_in("branch_7.onnx", message);
    expect_in("weights.bin", message);
  }
  add("branch_7.onnx", graph_with("weights.bin", protobuf::external_data("offset", "64")));
  open();
}

TEST_F(BundleTest, GraphsThatAreNoOnnx) {
  for (const std::string content : {"text, not protobuf", "\xff", "\x08"}) {
    add("branch_7.onnx", content);
    expect_in("branch_7.onnx", failure());
  }
}

TEST_F(BundleTest, VerifyFindsAFlippedBit) {
  open().verify();
  for (const char* name : {"branch_7.onnx", "branch_112.onnx", "weights.bin"}) {
    const std::string content = read_all(folder() / name);
    for (const std::size_t at : {std::size_t{0}, content.size() / 2, content.size() - 1}) {
      const Bundle bundle = open();
      std::string damaged = content;
      damaged[at] ^= 16;
      scratch_.write(name, damaged);
      expect_in(name, message_of<BundleError>([&] { bundle.verify(); }));
      scratch_.write(name, content);
    }
  }
  const Bundle bundle = open();
  std::filesystem::remove(folder() / "weights.bin");
  expect_in("weights.bin", message_of<BundleError>([&] { bundle.verify(); }));
}

}  // namespace
}  // namespace btnet
