#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "btnet/engine.h"
#include "btnet/error.h"
#include "python/bindings.h"
#include "python/calls.h"

namespace py = pybind11;

namespace {

using btnet::Bundle;
using btnet::Engine;

std::vector<btnet::ImageView> image_views(const std::vector<py::array>& images) {
  std::vector<btnet::ImageView> views;
  views.reserve(images.size());
  for (const py::array& image : images) views.push_back(image_view(image));
  return views;
}

std::unique_ptr<Engine> make_engine(const std::filesystem::path& bundle, const std::string& device,
                                    const std::string& precision, const std::string& hint, int threads,
                                    std::vector<int> resolutions, const std::string& indicator,
                                    const std::string& rounding, const std::string& color) {
  btnet::EngineOptions options;
  options.device = device;
  options.precision = precision;
  options.hint = hint;
  options.threads = threads;
  options.resolutions = std::move(resolutions);
  options.indicator = indicator;
  options.rounding = rounding;
  options.color = btnet::parse_color_order(color);
  options.log = warn;
  const py::gil_scoped_release release;
  return std::make_unique<Engine>(bundle, options);
}

py::array_t<float> embed_images(const Engine& engine, const std::vector<py::array>& images, bool flip, bool normalize) {
  const std::vector<btnet::ImageView> views = image_views(images);
  py::array_t<float> out({static_cast<py::ssize_t>(views.size()), static_cast<py::ssize_t>(engine.dim())});
  float* rows = out.mutable_data();
  const btnet::EmbedOptions options{flip, normalize, check_signals};
  const py::gil_scoped_release release;
  engine.embed(views.data(), views.size(), rows, options);
  return out;
}

py::array_t<int> select_branches(const Engine& engine, const std::vector<py::array>& images) {
  const std::vector<btnet::ImageView> views = image_views(images);
  py::array_t<int> out(static_cast<py::ssize_t>(views.size()));
  engine.select(views.data(), views.size(), out.mutable_data());
  return out;
}

std::vector<std::string> precisions(const Bundle& bundle) {
  std::vector<std::string> names;
  for (const auto& entry : bundle.graphs) names.push_back(entry.first);
  return names;
}

}  // namespace

void register_engine(py::module_& m) {
  py::class_<Bundle>(m, "Bundle")
      .def_static("open", &Bundle::open, py::arg("path"), py::call_guard<py::gil_scoped_release>())
      .def("verify", &Bundle::verify, py::call_guard<py::gil_scoped_release>())
      .def_readonly("path", &Bundle::path)
      .def_readonly("name", &Bundle::name)
      .def_readonly("arch", &Bundle::arch)
      .def_readonly("license", &Bundle::license)
      .def_readonly("width", &Bundle::width)
      .def_readonly("dim", &Bundle::dim)
      .def_readonly("canonical", &Bundle::canonical)
      .def_readonly("resolutions", &Bundle::resolutions)
      .def_property_readonly("precisions", &precisions)
      .def_readonly("digest", &Bundle::digest)
      .def_readonly("metadata", &Bundle::metadata);

  py::class_<Engine>(m, "Engine")
      .def(py::init(&make_engine), py::arg("bundle"), py::kw_only(), py::arg("device"), py::arg("precision"),
           py::arg("hint"), py::arg("threads"), py::arg("resolutions"), py::arg("indicator"), py::arg("rounding"),
           py::arg("color"))
      .def("embed", &embed_images, py::arg("images"), py::kw_only(), py::arg("flip"), py::arg("normalize"))
      .def("select", &select_branches, py::arg("images"))
      .def_property_readonly("dim", &Engine::dim)
      .def_property_readonly("resolutions", &Engine::resolutions)
      // A copy: who keeps the description need not keep the networks.
      .def_property_readonly("bundle", &Engine::bundle, py::return_value_policy::copy);
}
