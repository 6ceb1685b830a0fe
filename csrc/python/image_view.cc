#include <limits>
#include <string>

#include "btnet/error.h"
#include "python/bindings.h"

namespace py = pybind11;

btnet::ImageView image_view(const py::array& array) {
  if (!py::isinstance<py::array_t<std::uint8_t>>(array)) {
    throw btnet::InvalidImage("image has dtype " + py::str(array.dtype()).cast<std::string>() + ", expected uint8");
  }
  if (array.ndim() != 2 && array.ndim() != 3) {
    throw btnet::InvalidImage("image has " + std::to_string(array.ndim()) +
                              " dimensions, expected 2 or 3: (height, width) or (height, width, channels)");
  }
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
    if (array.shape(axis) > std::numeric_limits<int>::max()) {
      throw btnet::InvalidImage("image has a side of " + std::to_string(array.shape(axis)) + ", which is too long");
    }
  }
  const bool grey = array.ndim() == 2;
  return {static_cast<const std::uint8_t*>(array.data()),
          static_cast<int>(array.shape(0)),
          static_cast<int>(array.shape(1)),
          grey ? 1 : static_cast<int>(array.shape(2)),
          array.strides(0),
          array.strides(1),
          grey ? 1 : array.strides(2)};
}
