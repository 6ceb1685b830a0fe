#pragma once

#include <cstddef>

#include "core/aligned_memory.h"

namespace btnet {

/// Memory that is kept between calls: a few buffers that grow as needed.
class Scratch {
 public:
  enum Buffer {
    packed_image,
    small_image,
    half_way,
    weights,
    horizontal_taps,
    vertical_taps,
    columns,
    rows,
    row,
    buffer_count
  };

  /// At least `bytes` bytes, 64-byte aligned; valid until the same buffer is asked for again.
  void* get(Buffer buffer, std::size_t bytes) { return memory_[buffer].reserve(bytes); }

 private:
  AlignedMemory memory_[buffer_count];
};

}  // namespace btnet
