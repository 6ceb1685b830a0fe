/// For devices.py: what can be done to an emulated device only.

#include <cstddef>

#include "emulated_runtime.h"

extern "C" {

void emulated_set_devices(int count) { emulated::set_devices(count); }
void emulated_set_capacity(std::size_t bytes) { emulated::set_capacity(bytes); }
std::size_t emulated_live_blocks() { return emulated::live().device_blocks; }

}  // extern "C"
