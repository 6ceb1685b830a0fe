#include <pybind11/pybind11.h>

#include <exception>

#include "btnet/error.h"
#include "python/bindings.h"
#include "python/calls.h"

namespace py = pybind11;

namespace {

// C++ errors become the classes of btnet_ext.errors, so that both languages have one hierarchy.
void raise_as(const char* name, const std::exception& error) {
  const py::object type = py::module_::import("btnet_ext.errors").attr(name);
  py::set_error(type, text_object(error.what()));
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

void register_errors() { py::register_local_exception_translator(translate); }
