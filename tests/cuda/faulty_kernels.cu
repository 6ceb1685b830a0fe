#include <cstring>
#include <string>

#include "cuda/launch.h"
#include "emulated_runtime.h"

/// For kernels.py: kernels for the emulator's own tests (what it has to compute, and what it has to catch), and what
/// else can be done to an emulated device only.
namespace {

constexpr int kThreads = 64;

/// Reverses the values. Without the barrier it reads what others have not written yet.
__global__ void reverse(int* values, bool with_barrier) {
  __shared__ int tile[kThreads];
  const int last = blockDim.x - 1;
  tile[threadIdx.x] = values[threadIdx.x];
  if (with_barrier) __syncthreads();
  values[threadIdx.x] = tile[last - threadIdx.x];
}

/// Each group of `width` lanes gets the sum of its values.
__global__ void sum_groups(int* values, int width) {
  int sum = values[threadIdx.x];
  for (int distance = width / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, distance);
  values[threadIdx.x] = sum;
}

/// The two halves of a warp do as sum_groups, each with a mask of its own and one after the other.
__global__ void sum_halves(int* values) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0x0000ffffu : 0xffff0000u;
  int sum = values[threadIdx.x];
  if (mask == 0x0000ffffu) {
    for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
  } else {
    for (int distance = 8; distance > 0; distance /= 2) sum += __shfl_xor_sync(mask, sum, distance);
  }
  values[threadIdx.x] = sum;
}

/// The first block writes shared memory; the second only reads it.
__global__ void read_unwritten(int* values) {
  __shared__ int tile[kThreads];
  BTNET_DYNAMIC_SHARED(int, dynamic);
  if (blockIdx.x == 0) tile[threadIdx.x] = dynamic[threadIdx.x] = 1;
  __syncthreads();
  values[threadIdx.x] = tile[threadIdx.x] & dynamic[threadIdx.x];
}

__global__ void meet_at_two_barriers() {
  if (threadIdx.x < 10) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void leave_before_barrier() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

__global__ void shuffle_without_mask_bit(int* values) {
  values[threadIdx.x] = __shfl_xor_sync(0xfffffffeu, values[threadIdx.x], 0);
}

__global__ void shuffle_from_outside_mask(int* values) {
  if (threadIdx.x < 16) values[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, values[threadIdx.x], 16);
}

__global__ void shuffle_with_lane_that_left(int* values) {
  if (threadIdx.x == 0) return;
  values[threadIdx.x] = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
}

__global__ void wait_for_lanes_at_barrier(int* values) {
  if (threadIdx.x < 16) values[threadIdx.x] = __shfl_xor_sync(0xffffffffu, values[threadIdx.x], 1);
  __syncthreads();
}

__global__ void write_static_shared(int* values, int index) {
  __shared__ int tile[kThreads];
  tile[index] = 1;
  values[0] = tile[0];
}

__global__ void write_dynamic_shared(int index) {
  BTNET_DYNAMIC_SHARED(int, tile);
  tile[index] = 1;
}

__global__ void write_global(int* values, int index) { values[index] = 1; }

/// A kernel of the tests by name, on `count` values with a thread for each.
void run_case(const std::string& name, int* values, int count) {
  const auto run = [count](std::size_t shared_ints, const auto& kernel, unsigned blocks = 1) {
    emulator::run(blocks, count, shared_ints * sizeof(int), kernel);
  };
  if (name == "reverse") return run(0, [=] { reverse(values, true); });
  if (name == "reverse without barrier") return run(0, [=] { reverse(values, false); });
  if (name == "sum groups of 8") return run(0, [=] { sum_groups(values, 8); });
  if (name == "sum halves") return run(0, [=] { sum_halves(values); });
  if (name == "read unwritten") return run(count, [=] { read_unwritten(values); }, 2);
  if (name == "two barriers") return run(0, meet_at_two_barriers);
  if (name == "leave before barrier") return run(0, leave_before_barrier);
  if (name == "lane not in mask") return run(0, [=] { shuffle_without_mask_bit(values); });
  if (name == "from outside mask") return run(0, [=] { shuffle_from_outside_mask(values); });
  if (name == "lane that left") return run(0, [=] { shuffle_with_lane_that_left(values); });
  if (name == "lanes at barrier") return run(0, [=] { wait_for_lanes_at_barrier(values); });
  if (name == "write static shared") return run(0, [=] { write_static_shared(values, count); });
  if (name == "write dynamic shared") return run(count, [=] { write_dynamic_shared(count); });
  if (name == "write global") return run(0, [=] { write_global(values, count); });
  if (name == "too many threads") return emulator::run(1, 1025, 0, [] {});
  if (name == "too much shared memory") return emulator::run(1, 32, (48 << 10) + 1, [] {});
  if (name == "no blocks") return emulator::run(0, 32, 0, [] {});
  throw std::invalid_argument("no such case: " + name);
}

}  // namespace

extern "C" {

void emulated_set_order(unsigned order) { emulator::set_order(order); }

const char* emulated_last_failure() {
  static std::string message;
  message = emulated::last_failure();
  return message.c_str();
}

/// Null, or what went wrong.
const char* emulated_run_case(const char* name, int* values, int count) {
  static std::string message;
  try {
    run_case(name, values, count);
    return nullptr;
  } catch (const std::exception& error) {
    message = error.what();
    return message.c_str();
  }
}

}  // extern "C"
