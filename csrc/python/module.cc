#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>

#include "btnet/version.h"
#include "core/cores.h"
#include "core/environment.h"
#include "python/bindings.h"

namespace py = pybind11;

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled part of btnet_ext. Private: use btnet_ext.";
  m.attr("__version__") = BTNET_VERSION;
  register_errors();
  m.def("model_folder", [] { return btnet::model_folder(); }, "Where a user's bundles are: $BTNET_HOME.");
  m.def("cache_folder", [] { return btnet::cache_folder(); }, "Where compiled networks are: $BTNET_CACHE.");
  m.def("available_cores", &btnet::available_cores, "Threads of computation that this process can keep busy.");
  register_resample(m);
  register_engine(m);
}
