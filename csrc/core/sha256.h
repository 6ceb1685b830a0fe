#pragma once

#include <cstddef>
#include <string>

namespace btnet {

/// SHA-256 (FIPS 180-4) of `size` bytes, as 64 lower-case hexadecimal digits.
std::string sha256(const void* data, std::size_t size);

}  // namespace btnet
