#pragma once

/// Compiles a .cu file with g++ and has its kernels run by block.h:
///
///     g++ -x c++ -include emulator/emulator.h kernels.cu
///
/// CUDA's own headers give the types; what is declared in them and only nvcc can compile is replaced here, as far as
/// the kernels use it. Variables in shared memory have no initial values and stand in functions that are no templates.

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "emulated_runtime.h"
#include "emulator/block.h"

#define BTNET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::emulated::launch(::emulator::run, kernel, (grid), (block), (shared_bytes), (stream), __VA_ARGS__)
#define BTNET_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::emulator::dynamic_shared())

// All in one section, which is poisoned when a block begins. -fsanitize-sections=emulated_shared has AddressSanitizer
// watch over it.
#undef __shared__
#define __shared__ static __attribute__((section("emulated_shared"), aligned(16)))
#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (::emulator::position().thread)
#define blockIdx (::emulator::position().block)
#define blockDim (::emulator::position().block_size)
#define gridDim (::emulator::position().grid_size)

#define __syncthreads() ::emulator::synchronize(__FILE__, __LINE__)

using std::max;
using std::min;

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t), "a shuffle takes at most 8 bytes");
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  const unsigned source = ::emulator::lane() ^ static_cast<unsigned>(lane_mask);
  const std::uint64_t* values = ::emulator::exchange(mask, bits);
  if ((mask >> source & 1) == 0) ::emulator::fail("a shuffle reads a lane that is not in its mask");
  std::memcpy(&value, &values[source], sizeof(T));
  return value;
}
