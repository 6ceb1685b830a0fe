#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "btnet/image.h"

/// Has C++ errors become the classes of btnet_ext.errors in the module that calls it.
void register_errors();

/// The parts of the module _core, one file each.
void register_resample(pybind11::module_& m);
void register_engine(pybind11::module_& m);

/// A view of a uint8 array of shape (height, width) or (height, width, channels), with its strides as they are. The
/// view holds no reference: the array must outlive it. Throws InvalidImage for any other dtype or shape.
btnet::ImageView image_view(const pybind11::array& array);
