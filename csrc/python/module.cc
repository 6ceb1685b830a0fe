#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>

#include <optional>

#include "btnet/version.h"
#include "core/cores.h"
#include "core/environment.h"
#include "openvino/signal_stack.h"
#include "python/bindings.h"

namespace py = pybind11;

namespace {

/// SignalStackScope for Python's `with`.
class SignalStack {
 public:
  void enter() { scope_.emplace(); }
  void exit(const py::object&, const py::object&, const py::object&) { scope_.reset(); }

 private:
  std::optional<btnet::SignalStackScope> scope_;
};

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of btnet_ext. Private: use btnet_ext.";
  m.attr("__version__") = BTNET_VERSION;
  register_errors();
  m.def("model_folder", [] { return btnet::model_folder(); }, "Where a user's bundles are: $BTNET_HOME.");
  m.def("cache_folder", [] { return btnet::cache_folder(); }, "Where compiled networks are: $BTNET_CACHE.");
  m.def("available_cores", &btnet::available_cores, "Threads of computation that this process can keep busy.");
  // Whoever compiles networks with OpenVINO's own API would keep a signal stack of its CPU plugin, which unmaps it
  // later.
  py::class_<SignalStack>(m, "SignalStack", "Gives the thread its signal stack back at the end of a `with`.")
      .def(py::init<>())
      .def("__enter__", &SignalStack::enter)
      .def("__exit__", &SignalStack::exit);
  register_resample(m);
  register_engine(m);
}
