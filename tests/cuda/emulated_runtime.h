#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <tuple>
#include <utility>

/// A device that is not there: the calls of the CUDA runtime that btnet makes, on the host.
///
/// Work that is put into a stream does not run at once. It waits until somebody waits for it, and then the streams take
/// turns in an order drawn from a seed, each in its own order and after the events it waits for: what a missing event
/// can break does break under some seed. Each thread has a current device; a kernel in a stream of another one, and an
/// event of one device in a stream of another, are errors. Under AddressSanitizer device memory is out of bounds for
/// the host.
namespace emulated {

/// What is alive: to be zero once everything has been given back.
struct Live {
  std::size_t device_blocks, pinned_blocks, streams, events, graphs;
  bool operator==(const Live& other) const;
};
Live live();

/// Blocks of memory of one device that are alive.
std::size_t blocks_on(int device);

void set_seed(std::uint64_t seed);
void set_devices(int count);           ///< 0: as without a driver
void set_capability(int major);        ///< compute capability major.0
void set_recordable(bool recordable);  ///< false: what is recorded ends in an error
void set_capacity(std::size_t bytes);  ///< of device memory

/// How many calls that can fail have been made since the last `fail_at`.
std::size_t calls();
/// The nth call from now on fails, counted from 1; 0: none does. Allocations fail for want of memory.
void fail_at(std::size_t nth);

/// Puts work into a stream of the current device, as a kernel launch does; an exception from it is what waiting for the
/// stream reports.
void enqueue(cudaStream_t stream, std::function<void()> work);

/// The message of the last work that threw.
std::string last_failure();

/// Launches a kernel in an emulator, `run(grid, block, shared_bytes, body)`, when its turn comes.
template <class Run, class... Parameters, class... Arguments>
void launch(const Run& run, void (*kernel)(Parameters...), dim3 grid, dim3 block, std::size_t shared_bytes,
            cudaStream_t stream, Arguments... arguments) {
  enqueue(stream, [=] {
    run(grid, block, shared_bytes, [&] { std::apply(kernel, std::tuple<Parameters...>(arguments...)); });
  });
}

}  // namespace emulated
