#include "python/calls.h"

namespace py = pybind11;

namespace {

bool is_finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

}  // namespace

py::object text_object(std::string_view text) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<py::ssize_t>(text.size()), "backslashreplace"));
}

void check_signals() {
  if (is_finalizing()) return;
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw py::error_already_set();
}

void warn(const std::string& message) {
  if (is_finalizing()) return;
  const py::gil_scoped_acquire gil;
  py::module_::import("logging").attr("getLogger")("btnet_ext").attr("warning")(text_object(message));
}
