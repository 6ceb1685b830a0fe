#pragma once

#include <cstdint>
#include <string>

/// The protobuf wire format, by hand, so that tests can write what a library would not.
namespace protobuf {

inline std::string varint(std::uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7f) | 0x80);
  return bytes + static_cast<char>(value);
}

inline std::string tag(std::uint64_t field, int type) { return varint(field << 3 | type); }

inline std::string number(std::uint64_t field, std::uint64_t value) { return tag(field, 0) + varint(value); }

/// Text, bytes or a message.
inline std::string bytes(std::uint64_t field, const std::string& content) {
  return tag(field, 2) + varint(content.size()) + content;
}

// Messages of onnx.proto3, with its field numbers.

inline std::string entry(const std::string& key, const std::string& value) { return bytes(1, key) + bytes(2, value); }

/// A TensorProto with external data: `entries` are whole fields made with external_data().
inline std::string external_data(const std::string& key, const std::string& value) {
  return bytes(13, entry(key, value));
}

inline std::string external_tensor(const std::string& location, const std::string& more = "") {
  return number(1, 2) + number(2, 1) + bytes(8, "w") + external_data("location", location) + more + number(14, 1);
}

inline std::string initializer(const std::string& tensor) { return bytes(5, tensor); }           // of a graph
inline std::string node(const std::string& attribute) { return bytes(1, bytes(5, attribute)); }  // of a graph
inline std::string model(const std::string& graph) { return number(1, 8) + bytes(7, graph); }    // ir_version, graph
inline std::string function(const std::string& node) { return bytes(25, bytes(7, node)); }       // of a model

}  // namespace protobuf
