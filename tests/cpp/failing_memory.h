#pragma once

#include <atomic>
#include <cstdlib>
#include <new>

/// Replaces the program's allocation of memory on large boundaries, as that of an engine's tensors, by one that can be
/// told to fail. To be included in one file of a program.
struct FailingMemory {
  static inline std::atomic<bool> refuses{false};
};

void* operator new(std::size_t size, std::align_val_t alignment) {
  const auto boundary = static_cast<std::size_t>(alignment);
  void* memory =
      FailingMemory::refuses ? nullptr : std::aligned_alloc(boundary, (size + boundary - 1) / boundary * boundary);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }

void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
