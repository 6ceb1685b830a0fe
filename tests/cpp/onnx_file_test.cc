#include "core/onnx_file.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "btnet/error.h"
#include "protobuf.h"
#include "scratch.h"

namespace btnet {
namespace {

using namespace protobuf;  // NOLINT: its functions are the words that these tests are written in

// In memory of exactly that size, so that the sanitizers see a read past the end.
std::vector<ExternalTensor> parse(const std::string& file) {
  const auto exact = std::make_unique<unsigned char[]>(file.size());
  std::copy(file.begin(), file.end(), exact.get());
  return external_tensors(exact.get(), file.size(), "graph.onnx");
}

std::vector<std::string> locations(const std::string& file) {
  std::vector<std::string> found;
  for (const ExternalTensor& tensor : parse(file)) found.push_back(tensor.location);
  return found;
}

std::string failure(const std::string& file) {
  const std::string message = message_of<BundleError>([&] { parse(file); });
  expect_in("graph.onnx", message);
  return message;
}

// A tensor in every place of a model that may hold one.
std::string everywhere() {
  const std::string subgraph = bytes(6, initializer(external_tensor("subgraph")));     // AttributeProto.g
  const std::string subgraphs = bytes(11, initializer(external_tensor("subgraphs")));  // .graphs
  const std::string sparse = bytes(22, bytes(1, external_tensor("values")) + bytes(2, external_tensor("indices")));
  const std::string graph = initializer(external_tensor("initializer")) +
                            node(bytes(1, "value") + bytes(5, external_tensor("t"))) +      // .t
                            node(bytes(10, external_tensor("tensors"))) +                   // .tensors
                            node(subgraph) + node(subgraphs) + node(sparse) +               // .sparse_tensor
                            node(bytes(23, bytes(1, external_tensor("sparse_tensors")))) +  // .sparse_tensors
                            bytes(15, bytes(1, external_tensor("sparse_initializer")));
  return model(graph) + function(bytes(5, bytes(5, external_tensor("function")))) +
         bytes(25, bytes(11, bytes(5, external_tensor("function_attribute"))));
}

TEST(OnnxFile, NothingExternal) {
  EXPECT_TRUE(parse("").empty());
  EXPECT_TRUE(parse(model("")).empty());
  EXPECT_TRUE(parse(model(initializer(number(2, 1) + bytes(9, "raw!")))).empty());
}

TEST(OnnxFile, OffsetAndLength) {
  const auto found = parse(model(
      initializer(external_tensor("weights.bin", external_data("offset", "4096") + external_data("length", "12")))));
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].location, "weights.bin");
  EXPECT_EQ(found[0].offset, 4096u);
  EXPECT_EQ(found[0].length, 12u);
  const auto without = parse(model(initializer(external_tensor("weights.bin", external_data("checksum", "x")))));
  ASSERT_EQ(without.size(), 1u);
  EXPECT_EQ(without[0].offset, 0u);
  EXPECT_EQ(without[0].length, std::nullopt);
}

TEST(OnnxFile, TensorsOfAnyType) {
  for (const int type : {1, 2, 3, 10, 16, 999}) {  // float, uint8, int8, float16, bfloat16, and what is to come
    EXPECT_EQ(locations(model(initializer(number(2, type) + external_data("location", "weights.bin") + number(14, 1)))),
              std::vector<std::string>{"weights.bin"});
  }
}

TEST(OnnxFile, InEveryPlace) {
  EXPECT_EQ(locations(everywhere()),
            (std::vector<std::string>{"initializer", "t", "tensors", "subgraph", "subgraphs", "values", "indices",
                                      "sparse_tensors", "sparse_initializer", "function", "function_attribute"}));
}

TEST(OnnxFile, TrainingInformationIsAModelToo) {
  const std::string initialization = bytes(20, bytes(1, initializer(external_tensor("first"))));
  const std::string algorithm = bytes(20, bytes(2, initializer(external_tensor("second"))));
  EXPECT_EQ(locations(initialization + algorithm), (std::vector<std::string>{"first", "second"}));
}

// Protobuf merges a message that comes twice, and the result is neither of the two that could be checked.
TEST(OnnxFile, FieldsThatMayComeOnce) {
  const std::string tensor = external_tensor("a");
  const std::string graph = initializer(tensor);
  for (const std::string& file : {
           model(graph) + bytes(7, graph),
           bytes(20, bytes(1, graph) + bytes(1, graph)),
           bytes(20, bytes(2, graph) + bytes(2, graph)),
           model(node(bytes(5, tensor) + bytes(5, tensor))),
           model(node(bytes(6, graph) + bytes(6, graph))),
           model(node(bytes(22, bytes(1, tensor)) + bytes(22, bytes(1, tensor)))),
           model(node(bytes(22, bytes(1, tensor) + bytes(1, tensor)))),
           model(bytes(15, bytes(2, tensor) + bytes(2, tensor))),
       }) {
    expect_in("twice", failure(file));
  }
}

TEST(OnnxFile, EntriesCountEvenWithoutTheExternalMark) {
  EXPECT_EQ(locations(model(initializer(external_data("location", "x")))), std::vector<std::string>{"x"});
  EXPECT_EQ(locations(model(initializer(external_data("location", "x") + number(14, 0)))),
            std::vector<std::string>{"x"});
}

TEST(OnnxFile, DuplicateKeys) {
  expect_in("twice", failure(model(initializer(external_tensor("a", external_data("location", "b"))))));
  const std::string twice = external_data("offset", "0") + external_data("offset", "4096");
  expect_in("twice", failure(model(initializer(external_tensor("a", twice)))));
}

TEST(OnnxFile, NoLocation) {
  expect_in("location", failure(model(initializer(number(14, 1)))));
  expect_in("location", failure(model(initializer(external_data("offset", "0") + number(14, 1)))));
}

TEST(OnnxFile, NumbersThatAreNone) {
  for (const std::string wrong : {"", "-1", "+1", " 1", "1 ", "0x10", "1e3", "1.0", "99999999999999999999", "NaN"}) {
    for (const std::string key : {"offset", "length"}) {
      SCOPED_TRACE(key + " '" + wrong + "'");
      expect_in("not a number", failure(model(initializer(external_tensor("a", external_data(key, wrong))))));
    }
  }
}

TEST(OnnxFile, NumbersOfAnyOtherKeyAreLeftAlone) {
  EXPECT_EQ(locations(model(initializer(external_tensor("a", external_data("note", "no number"))))),
            std::vector<std::string>{"a"});
}

TEST(OnnxFile, CutShortAtEveryByte) {
  const std::string whole = everywhere();
  int refused = 0;
  for (std::size_t size = 0; size < whole.size(); ++size) {
    try {
      const auto found = locations(whole.substr(0, size));  // the end of a top-level field: a whole, smaller model
      EXPECT_LT(found.size(), 11u);
    } catch (const BundleError&) {
      ++refused;
    }
  }
  // Bytes are lost silently only where a top-level field ends: after none, the version, the graph and a function.
  EXPECT_EQ(refused, static_cast<int>(whole.size()) - 4);
}

TEST(OnnxFile, WrongWireTypes) {
  for (const int type : {3, 4, 6, 7}) {
    SCOPED_TRACE(type);
    failure(model(tag(5, type) + "xxxxxxxxxxxx"));
    failure(model(initializer(tag(13, type) + "xxxxxxxxxxxx")));
  }
  EXPECT_TRUE(parse(model(tag(90, 1) + "12345678" + tag(91, 5) + "1234")).empty());
  failure(model(tag(90, 1) + "1234567"));
  failure(model(tag(91, 5) + "123"));
  failure(model(initializer(bytes(13, number(1, 3)))));  // a key that is a number
}

TEST(OnnxFile, LengthsThatOverflow) {
  for (const std::uint64_t length : {~std::uint64_t{0}, std::uint64_t{1} << 63, std::uint64_t{1} << 32}) {
    failure(tag(7, 2) + varint(length) + "abc");
    failure(model(tag(5, 2) + varint(length) + "abc"));
  }
  failure(std::string(11, '\xff'));
}

// Protobuf's own parsers keep 32 bits of a tag and drop what is above: a tag of 2^32 + 13 * 8 + 2 is one of field 13
// to them. A reader that takes it for an unknown field overlooks a location.
TEST(OnnxFile, TagsPast32Bits) {
  const std::string hidden_entry = varint((std::uint64_t{1} << 32) | (13 << 3 | 2)) +
                                   varint(entry("location", "../x").size()) + entry("location", "../x");
  failure(model(initializer(number(14, 1) + hidden_entry)));
  failure(model(initializer(hidden_entry)));
  failure(varint((std::uint64_t{1} << 32) | (7 << 3 | 2)) + varint(1) + "x");
}

TEST(OnnxFile, FieldZero) { failure(tag(0, 0) + varint(1)); }

std::string nested(int depth) {
  std::string graph = initializer(external_tensor("deep"));
  for (int level = 0; level < depth; ++level) graph = node(bytes(6, graph));
  return model(graph);
}

TEST(OnnxFile, NestedGraphs) {
  EXPECT_EQ(locations(nested(3)), std::vector<std::string>{"deep"});
  expect_in("nested", failure(nested(2000)));
}

TEST(OnnxFile, RandomBytes) {
  constexpr unsigned kSeed = 7;
  std::mt19937 random(kSeed);
  for (int trial = 0; trial < 20000; ++trial) {
    std::string file(std::uniform_int_distribution<int>(0, 60)(random), '\0');
    for (char& byte : file) byte = static_cast<char>(random());
    try {
      parse(file);
    } catch (const BundleError&) {
    }
  }
}

TEST(OnnxFile, RandomDamage) {
  constexpr unsigned kSeed = 8;
  std::mt19937 random(kSeed);
  const std::string whole = everywhere();
  for (int trial = 0; trial < 20000; ++trial) {
    std::string file = whole;
    for (int flips = std::uniform_int_distribution<int>(1, 4)(random); flips > 0; --flips) {
      file[random() % file.size()] = static_cast<char>(random());
    }
    try {
      parse(file);
    } catch (const BundleError&) {
    }
  }
}

}  // namespace
}  // namespace btnet
