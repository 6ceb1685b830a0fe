#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "btnet/error.h"
#include "btnet/pipeline.h"
#include "core/selector.h"
#include "cuda/device.h"
#include "python/bindings.h"
#include "python/calls.h"
#include "python/dlpack.h"

namespace py = pybind11;

namespace {

using btnet::Pipeline;
using btnet::SourceImage;

/// An exception of an executor in Python, on its way through the pipeline. What is no Exception there, such as
/// KeyboardInterrupt, is not one of these: nothing must catch it.
struct PythonError : btnet::Error {
  explicit PythonError(const py::error_already_set& error) : Error(message(error)), original(error) {}

  /// Without the traceback that what() has.
  static std::string message(const py::error_already_set& error) { return py::str(error.value()); }

  py::error_already_set original;
};

/// An executor written in Python: an object with the functions of btnet::DeviceExecutor, addresses as integers.
class PythonExecutor final : public btnet::DeviceExecutor {
 public:
  explicit PythonExecutor(py::object executor)
      : executor_(std::move(executor)),
        dim_(executor_.attr("dim")().cast<int>()),
        element_(parse_element(executor_.attr("input_element")().cast<std::string>())) {}

  ~PythonExecutor() override {
    const py::gil_scoped_acquire gil;
    executor_ = {};
  }

  int dim() const override { return dim_; }
  btnet::Element input_element() const override { return element_; }

  std::vector<int> batch_sizes(int resolution) const override {
    const py::gil_scoped_acquire gil;
    return executor_.attr("batch_sizes")(resolution).cast<std::vector<int>>();
  }

  void enqueue(int resolution, int count, const void* input, float* output, CUstream_st* stream, int slot) override {
    const py::gil_scoped_acquire gil;
    try {
      executor_.attr("enqueue")(resolution, count, reinterpret_cast<std::uintptr_t>(input),
                                reinterpret_cast<std::uintptr_t>(output), reinterpret_cast<std::uintptr_t>(stream),
                                slot);
    } catch (const py::error_already_set& error) {
      if (error.matches(PyExc_MemoryError)) throw btnet::OutOfMemory(PythonError::message(error));
      if (error.matches(PyExc_Exception)) throw PythonError(error);
      throw;
    }
  }

  void release_memory() override {
    const py::gil_scoped_acquire gil;
    executor_.attr("release_memory")();
  }

 private:
  static btnet::Element parse_element(const std::string& name) {
    if (name == "f32") return btnet::Element::f32;
    if (name == "f16") return btnet::Element::f16;
    throw btnet::InvalidOption("the executor's input_element() must be 'f32' or 'f16', not '" + name + "'");
  }

  py::object executor_;
  int dim_;
  btnet::Element element_;
};

/// An image in device memory, with strides in bytes; `owner` keeps it alive.
struct DeviceArray {
  btnet::ImageView view;
  py::object owner;
};

DeviceArray make_device_array(std::uintptr_t address, int height, int width, int channels,
                              const std::array<std::ptrdiff_t, 3>& strides, py::object owner) {
  return {{reinterpret_cast<const std::uint8_t*>(address), height, width, channels, strides[0], strides[1], strides[2]},
          std::move(owner)};
}

std::vector<SourceImage> source_images(const py::list& images) {
  std::vector<SourceImage> sources;
  sources.reserve(images.size());
  for (const py::handle image : images) {
    if (py::isinstance<DeviceArray>(image)) {
      sources.push_back({image.cast<const DeviceArray&>().view, true});
    } else {
      sources.push_back({image_view(image.cast<py::array>()), false});
    }
  }
  return sources;
}

/// CUDA may wait for host functions of Python's, which need the GIL: nothing of CUDA is called with it.
struct DeleteWithoutGil {
  template <class T>
  void operator()(T* owner) const {
    const py::gil_scoped_release release;
    delete owner;
  }
};
using PipelineHolder = std::unique_ptr<Pipeline, DeleteWithoutGil>;
using BufferHolder = std::unique_ptr<btnet::cuda::DeviceMemory, DeleteWithoutGil>;
using WithoutGil = py::call_guard<py::gil_scoped_release>;

BufferHolder make_buffer(std::size_t bytes) {
  BufferHolder buffer(new btnet::cuda::DeviceMemory);
  try {
    const py::gil_scoped_release release;
    buffer->reserve(bytes);
  } catch (const btnet::OutOfMemory& error) {
    PyErr_SetString(PyExc_MemoryError, error.what());
    throw py::error_already_set();
  }
  return buffer;
}

/// Refuses what a pipeline would, before there is an executor: to make one may take minutes.
void check_options(const std::filesystem::path& bundle, const std::vector<int>& resolutions,
                   const std::string& indicator, const std::string& rounding, const std::string& color) {
  btnet::parse_color_order(color);
  const btnet::Selector accepted(btnet::Bundle::open(bundle), resolutions, indicator, rounding);
}

PipelineHolder make_pipeline(const std::filesystem::path& bundle, py::object executor, int device,
                             std::vector<int> resolutions, const std::string& indicator, const std::string& rounding,
                             const std::string& color) {
  btnet::PipelineOptions options;
  options.device = device;
  options.resolutions = std::move(resolutions);
  options.indicator = indicator;
  options.rounding = rounding;
  options.color = btnet::parse_color_order(color);
  options.log = warn;
  auto networks = std::make_unique<PythonExecutor>(std::move(executor));
  const py::gil_scoped_release release;
  return PipelineHolder(new Pipeline(btnet::Bundle::open(bundle), std::move(networks), options));
}

py::array_t<float> embed_images(const Pipeline& pipeline, const py::list& images, bool flip, bool normalize) {
  const std::vector<SourceImage> sources = source_images(images);
  py::array_t<float> out({static_cast<py::ssize_t>(sources.size()), static_cast<py::ssize_t>(pipeline.dim())});
  float* rows = out.mutable_data();
  const btnet::EmbedOptions options{flip, normalize, check_signals};
  try {
    const py::gil_scoped_release release;
    pipeline.embed(sources.data(), sources.size(), rows, options);
  } catch (const PythonError& error) {
    throw error.original;
  }
  return out;
}

py::array_t<int> select_branches(const Pipeline& pipeline, const py::list& images) {
  const std::vector<SourceImage> sources = source_images(images);
  py::array_t<int> out(static_cast<py::ssize_t>(sources.size()));
  pipeline.select(sources.data(), sources.size(), out.mutable_data());
  return out;
}

void synchronize(std::uintptr_t stream) {
  const py::gil_scoped_release release;
  btnet::cuda::check(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(stream)), "waiting for a stream");
}

/// A DeviceScope as a context manager.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) : device_(device) {}
  void enter() { scope_.emplace(device_); }
  void exit() {
    const py::gil_scoped_release release;
    scope_.reset();
  }

 private:
  int device_;
  std::optional<btnet::cuda::DeviceScope> scope_;
};

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The GPU path of btnet_ext. Private: use btnet_ext. Importing it needs no driver.";
  register_errors();
  m.attr("ANY_DEVICE") = btnet::cuda::kAnyDevice;
  m.def("check_device", &btnet::cuda::check_device, py::arg("device"), WithoutGil(),
        "Raise BackendUnavailable unless it is there and can be used; makes its context.");
  m.def(
      "describe_device",
      [](int device) {
        const btnet::cuda::DeviceInfo info = [device] {
          const py::gil_scoped_release release;
          return btnet::cuda::describe_device(device);
        }();
        return py::make_tuple(info.name, py::make_tuple(info.major, info.minor));
      },
      py::arg("device"), "Name and compute capability. Raise BackendUnavailable unless it is there; makes no context.");
  m.def(
      "device_of",
      [](std::uintptr_t address) { return btnet::cuda::device_of(reinterpret_cast<const void*>(address)); },
      py::arg("address"), WithoutGil(),
      "Index of the device whose memory this is; ANY_DEVICE for managed memory, -1 for memory of the host.");
  m.def("synchronize", &synchronize, py::arg("stream"), "Wait for the work of a CUDA stream, given as a number.");
  m.def("read_dlpack", &read_dlpack, py::arg("capsule"), "Address, shape, strides in bytes, type and device.");

  // Types are known in this module only: another build of it, for an emulated device, may be loaded beside it.
  py::class_<CurrentDevice>(m, "CurrentDevice", "Makes a device the current one of this thread within a with block.",
                            py::module_local())
      .def(py::init<int>(), py::arg("device"))
      .def("__enter__", &CurrentDevice::enter, WithoutGil())
      .def("__exit__", [](CurrentDevice& self, const py::args&) { self.exit(); });

  py::class_<btnet::cuda::DeviceMemory, BufferHolder>(m, "DeviceBuffer", "Memory of the current device.",
                                                      py::module_local())
      .def(py::init(&make_buffer), py::arg("bytes"), "Raises MemoryError.")
      .def_property_readonly("address", [](const btnet::cuda::DeviceMemory& buffer) {
        return reinterpret_cast<std::uintptr_t>(buffer.get());
      });

  py::class_<DeviceArray>(m, "DeviceArray", "An image in device memory.", py::module_local())
      .def(py::init(&make_device_array), py::arg("address"), py::arg("height"), py::arg("width"), py::arg("channels"),
           py::arg("strides"), py::arg("owner"));

  m.def("check_options", &check_options, py::arg("bundle"), py::kw_only(), py::arg("resolutions"), py::arg("indicator"),
        py::arg("rounding"), py::arg("color"), "Raise what Pipeline would for these options.");
  py::class_<Pipeline, PipelineHolder>(m, "Pipeline", py::module_local())
      .def(py::init(&make_pipeline), py::arg("bundle"), py::arg("executor"), py::kw_only(), py::arg("device"),
           py::arg("resolutions"), py::arg("indicator"), py::arg("rounding"), py::arg("color"))
      .def("embed", &embed_images, py::arg("images"), py::kw_only(), py::arg("flip"), py::arg("normalize"))
      .def("select", &select_branches, py::arg("images"))
      .def_property_readonly("dim", &Pipeline::dim)
      .def_property_readonly("resolutions", &Pipeline::resolutions);
}
