#pragma once

/// The two things that only nvcc can parse. Tests run the kernels on a CPU: what they include first defines both anew.

/// Starts a kernel; the arguments after the stream are its own.
#ifndef BTNET_LAUNCH
#define BTNET_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#endif

/// Declares `name`, a pointer to the shared memory whose size the launch gives, aligned to 16 bytes.
#ifndef BTNET_DYNAMIC_SHARED
#define BTNET_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char btnet_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(btnet_dynamic_shared)
#endif
