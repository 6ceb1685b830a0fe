#include "resample/scratch.h"

#include <new>

namespace btnet {

constexpr std::align_val_t kAlignment{64};

void Scratch::Free::operator()(void* memory) const { ::operator delete(memory, kAlignment); }

void* Scratch::get(Buffer buffer, std::size_t bytes) {
  if (bytes_[buffer] < bytes) {
    memory_[buffer].reset();
    bytes_[buffer] = 0;
    memory_[buffer].reset(::operator new(bytes, kAlignment));
    bytes_[buffer] = bytes;
  }
  return memory_[buffer].get();
}

}  // namespace btnet
