#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>

/// Runs kernels on the host: the blocks of a grid one after the other, the threads of a block as fibers, which stop at
/// barriers and at the operations of a warp. It does not time anything, and it has no textures, asynchronous copies,
/// tensor cores, or blocks that run at the same time.
namespace emulator {

/// What a GPU would not report, or would answer by hanging: barriers that not all threads reach, lanes missing from a
/// mask or from an operation, a launch that cannot be. Names the block and the thread.
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// In which order the threads of a block get their turns, and the blocks of a grid theirs. 0: ascending; 1: descending;
/// others: the seed of a shuffle, drawn anew for each block, blocks ascending. A kernel that lacks a barrier gives
/// different results.
void set_order(unsigned order);

/// Runs a kernel. Shared memory holds 0xff bytes when a block begins.
void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);

/// What kernels see of where they run.
struct Position {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
const Position& position();
void* dynamic_shared();

/// __syncthreads() in that line of the source: all threads have to wait in the same one.
void synchronize(const char* file, int line);

/// What each lane of the mask passed to this operation, once all of them have. `value_bits` is this lane's.
const std::uint64_t* exchange(unsigned mask, std::uint64_t value_bits);

unsigned lane();
[[noreturn]] void fail(const std::string& message);

}  // namespace emulator
