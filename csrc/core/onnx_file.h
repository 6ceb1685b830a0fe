#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace btnet {

/// Where one tensor of an ONNX graph keeps its data outside the graph file.
struct ExternalTensor {
  std::string location;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;  ///< none: up to the end of the file
};

/// Every external tensor of a serialised ONNX ModelProto, in subgraphs, functions and attributes too.
///
/// Reads no more of the protobuf wire format than it takes to find them, and trusts nothing in it.
/// Throws BundleError, with `name` in its sentence, for bytes that are not a well-formed model.
std::vector<ExternalTensor> external_tensors(const unsigned char* data, std::size_t size, const std::string& name);

}  // namespace btnet
