#include "core/onnx_file.h"

#include <set>
#include <string_view>

#include "btnet/error.h"

namespace btnet {
namespace {

// The messages of onnx.proto3 on the way from a model to its tensors.
enum class Message { model, training, graph, function, node, attribute, sparse_tensor, tensor, entry, other };

// Which message a field of a message holds, by the field numbers of onnx.proto3.
Message child(Message message, std::uint32_t field) {
  switch (message) {
    case Message::model:
      return field == 7    ? Message::graph
             : field == 20 ? Message::training
             : field == 25 ? Message::function
                           : Message::other;
    case Message::training:
      return field == 1 || field == 2 ? Message::graph : Message::other;
    case Message::graph:
      return field == 1    ? Message::node
             : field == 5  ? Message::tensor
             : field == 15 ? Message::sparse_tensor
                           : Message::other;
    case Message::function:
      return field == 7 ? Message::node : field == 11 ? Message::attribute : Message::other;
    case Message::node:
      return field == 5 ? Message::attribute : Message::other;
    case Message::attribute:
      return field == 5 || field == 10    ? Message::tensor
             : field == 6 || field == 11  ? Message::graph
             : field == 22 || field == 23 ? Message::sparse_tensor
                                          : Message::other;
    case Message::sparse_tensor:
      return field == 1 || field == 2 ? Message::tensor : Message::other;
    case Message::tensor:
      return field == 13 ? Message::entry : Message::other;
    case Message::entry:
    case Message::other:
      break;
  }
  return Message::other;
}

// Fields that a message has once. Readers merge two of them into one that neither is: what is checked here must be what
// is read later.
bool is_single(Message message, std::uint32_t field) {
  switch (message) {
    case Message::model:
      return field == 7;
    case Message::training:
    case Message::sparse_tensor:
      return field == 1 || field == 2;
    case Message::attribute:
      return field == 5 || field == 6 || field == 22;
    default:
      return false;
  }
}

constexpr std::uint32_t kTensorDataLocation = 14;
constexpr std::uint32_t kEntryKey = 1;
constexpr std::uint32_t kEntryValue = 2;
constexpr int kDeepest = 64;

class Reader {
 public:
  Reader(std::string name) : name_(std::move(name)) {}

  void model(std::string_view bytes) { walk(bytes, Message::model, 0); }

  std::vector<ExternalTensor> found;

 private:
  struct Entry {
    std::string key, value;
  };

  struct Tensor {
    bool external = false;
    std::vector<Entry> entries;
  };

  [[noreturn]] void fail(const std::string& why) const { throw BundleError(name_ + " is no usable ONNX file: " + why); }

  std::uint64_t varint(std::string_view& bytes) const {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (bytes.empty()) fail("it ends in the middle of a number");
      const auto byte = static_cast<unsigned char>(bytes.front());
      bytes.remove_prefix(1);
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    fail("a number has more than 64 bits");
  }

  // Some readers drop the bits of a tag past 32: what is an unknown field here would be a known one there.
  std::uint32_t tag(std::string_view& bytes) const {
    const std::uint64_t value = varint(bytes);
    if (value >> 32 != 0 || value >> 3 == 0) fail("it has a field without a valid number");
    return static_cast<std::uint32_t>(value);
  }

  std::string_view take(std::string_view& bytes, std::uint64_t count) const {
    if (count > bytes.size()) fail("a field is longer than the file");
    const std::string_view taken = bytes.substr(0, count);
    bytes.remove_prefix(count);
    return taken;
  }

  void walk(std::string_view bytes, Message message, int depth) {
    if (depth > kDeepest) fail("its graphs are nested too deeply");
    Tensor tensor;
    std::set<std::uint32_t> singles;
    while (!bytes.empty()) {
      const std::uint32_t tag = this->tag(bytes);
      const std::uint32_t field = tag >> 3;
      switch (tag & 7) {
        case 0: {
          const std::uint64_t value = varint(bytes);
          if (message == Message::tensor && field == kTensorDataLocation) tensor.external = value == 1;
          break;
        }
        case 1:
          take(bytes, 8);
          break;
        case 2: {
          const std::string_view body = take(bytes, varint(bytes));
          const Message inner = child(message, field);
          if (is_single(message, field) && !singles.insert(field).second)
            fail("it has a field twice that is there once");
          if (inner == Message::entry) {
            tensor.entries.push_back(entry(body));
          } else if (inner != Message::other) {
            walk(body, inner, depth + 1);
          }
          break;
        }
        case 5:
          take(bytes, 4);
          break;
        default:
          fail("it has a field of an unknown type");
      }
    }
    if (tensor.external || !tensor.entries.empty()) found.push_back(external(tensor));
  }

  Entry entry(std::string_view bytes) const {
    Entry read;
    while (!bytes.empty()) {
      const std::uint32_t tag = this->tag(bytes);
      if ((tag & 7) != 2) fail("an external-data entry holds something that is not text");
      const std::string_view text = take(bytes, varint(bytes));
      if (tag >> 3 == kEntryKey) read.key = text;
      if (tag >> 3 == kEntryValue) read.value = text;
    }
    return read;
  }

  ExternalTensor external(const Tensor& tensor) const {
    ExternalTensor read;
    std::set<std::string> keys;
    for (const Entry& entry : tensor.entries) {
      // Readers differ in which of two they take.
      if (!keys.insert(entry.key).second) fail("a tensor gives its external " + entry.key + " twice");
      if (entry.key == "location") {
        read.location = entry.value;
      } else if (entry.key == "offset") {
        read.offset = number(entry.value);
      } else if (entry.key == "length") {
        read.length = number(entry.value);
      }
    }
    if (keys.count("location") == 0) fail("a tensor has external data but no location");
    return read;
  }

  std::uint64_t number(const std::string& text) const {
    constexpr std::size_t kMostDigits = 18;
    if (text.empty() || text.size() > kMostDigits || text.find_first_not_of("0123456789") != std::string::npos) {
      fail("an external offset or length is '" + text.substr(0, 2 * kMostDigits) + "', not a number");
    }
    return std::stoull(text);
  }

  std::string name_;
};

}  // namespace

std::vector<ExternalTensor> external_tensors(const unsigned char* data, std::size_t size, const std::string& name) {
  Reader reader(name);
  reader.model({reinterpret_cast<const char*>(data), size});
  return std::move(reader.found);
}

}  // namespace btnet
