#pragma once

#include <pybind11/pybind11.h>

/// Reads a capsule that __dlpack__() gave, without consuming it: (address, shape, strides in bytes, type code, bits,
/// lanes, device type, device). Throws InvalidImage for anything else.
pybind11::tuple read_dlpack(const pybind11::capsule& capsule);
