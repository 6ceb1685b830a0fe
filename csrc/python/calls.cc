#include "python/calls.h"

#include <pybind11/pybind11.h>

namespace py = pybind11;

void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

void warn(const std::string& message) {
  const py::gil_scoped_acquire gil;
  py::module_::import("logging").attr("getLogger")("btnet_ext").attr("warning")(message);
}
