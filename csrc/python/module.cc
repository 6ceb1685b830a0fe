#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>

#include <exception>
#include <string_view>

#include "btnet/error.h"
#include "btnet/version.h"
#include "core/cores.h"
#include "core/environment.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace {

// C++ errors become the classes of btnet_ext.errors, so that both languages have one hierarchy.
void raise_as(const char* name, const std::exception& error) {
  const py::object type = py::module_::import("btnet_ext.errors").attr(name);
  // Paths may hold any bytes; a message must not fail for them.
  const std::string_view what(error.what());
  const auto text = py::reinterpret_steal<py::object>(
      PyUnicode_DecodeUTF8(what.data(), static_cast<py::ssize_t>(what.size()), "backslashreplace"));
  py::set_error(type, text);
}

void translate(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const btnet::InvalidImage& error) {
    raise_as("InvalidImage", error);
  } catch (const btnet::InvalidOption& error) {
    raise_as("InvalidOption", error);
  } catch (const btnet::BundleError& error) {
    raise_as("BundleError", error);
  } catch (const btnet::BackendUnavailable& error) {
    raise_as("BackendUnavailable", error);
  } catch (const btnet::Error& error) {
    raise_as("BtnetError", error);
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of btnet_ext. Private: use btnet_ext.";
  m.attr("__version__") = BTNET_VERSION;
  py::register_local_exception_translator(translate);
  m.def("model_folder", [] { return btnet::model_folder(); }, "Where a user's bundles are: $BTNET_HOME.");
  m.def("cache_folder", [] { return btnet::cache_folder(); }, "Where compiled networks are: $BTNET_CACHE.");
  m.def("available_cores", &btnet::available_cores, "Threads of computation that this process can keep busy.");
  register_resample(m);
  register_engine(m);
}
