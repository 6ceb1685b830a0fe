#pragma once

#include <cstddef>
#include <memory>
#include <new>

namespace btnet {

/// Memory on a 64-byte boundary that grows as needed and is kept between uses.
class AlignedMemory {
 public:
  /// At least `bytes` bytes, valid until the next call; where they are more than before, what was in them is lost.
  void* reserve(std::size_t bytes) {
    if (bytes > bytes_) {
      memory_.reset();
      bytes_ = 0;  // also where there is no memory for more
      memory_.reset(::operator new(bytes, kAlignment));
      bytes_ = bytes;
    }
    return memory_.get();
  }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(void* memory) const { ::operator delete(memory, kAlignment); }
  };
  std::unique_ptr<void, Free> memory_;
  std::size_t bytes_ = 0;
};

}  // namespace btnet
