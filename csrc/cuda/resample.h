#pragma once

#include <cuda_runtime_api.h>

#include "btnet/device_executor.h"
#include "cuda/resize_plan.h"

/// Resizing on the GPU, bit-exact with Pillow and with the CPU: the same taps (resample/taps.h), the same integer sums.
///
/// Both functions put two launches into the stream, taps and then pixels, and neither take memory nor copy anything:
///   device_plan  plan.bytes(), copied to the device
///   workspace    plan.taps().workspace_bytes() of device memory, aligned to 4; what it held is lost
/// Launches that fail throw Error. Images of any strides are taken. Those with packed rows that start at multiples of
/// 16 bytes are read 16 bytes at a time, unless Pillow begins with their columns.
namespace btnet::cuda {

/// Every image of the plan to its own size and into its own tensor: (value - mean) * (1 / std) in float32, then to
/// `element`. `swap_red_blue` reverses the channels; a grey image fills all three planes.
void resize_normalize(const ResizePlan& plan, const Normalization& normalization, bool swap_red_blue, Element element,
                      const void* device_plan, void* workspace, cudaStream_t stream);

/// Every image of the plan down and up again; the small image stays in shared memory.
void degrade(const DegradePlan& plan, const void* device_plan, void* workspace, cudaStream_t stream);

}  // namespace btnet::cuda
