#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "btnet/resample.h"
#include "python/bindings.h"
#include "resample/views.h"

namespace py = pybind11;

namespace {

using btnet::Resampler;

/// An array for a height x width image with the channels (none at all for a 2-D array) of `image`.
py::array_t<std::uint8_t> make_output(const py::array& image, int height, int width) {
  btnet::check_side("height", height);
  btnet::check_side("width", width);
  std::vector<py::ssize_t> shape(image.shape(), image.shape() + image.ndim());
  shape[0] = height;
  shape[1] = width;
  return py::array_t<std::uint8_t>(shape);
}

/// A new array of that size, filled by `run(resampler, view, pixels)` without the GIL.
template <class Run>
py::array_t<std::uint8_t> resample(const py::array& image, int height, int width, const std::string& filter, Run run) {
  const btnet::ImageView view = image_view(image);
  Resampler resampler(btnet::parse_filter(filter));
  py::array_t<std::uint8_t> out = make_output(image, height, width);
  std::uint8_t* pixels = out.mutable_data();
  {
    const py::gil_scoped_release release;
    run(resampler, view, pixels);
  }
  return out;
}

py::array_t<std::uint8_t> resize(const py::array& image, int height, int width, const std::string& filter) {
  return resample(image, height, width, filter,
                  [&](Resampler& resampler, const btnet::ImageView& view, std::uint8_t* pixels) {
                    resampler.resize(view, height, width, pixels);
                  });
}

py::array_t<std::uint8_t> degrade(const py::array& image, int resolution, int canonical, const std::string& filter) {
  return resample(image, canonical, canonical, filter,
                  [&](Resampler& resampler, const btnet::ImageView& view, std::uint8_t* pixels) {
                    resampler.degrade(view, resolution, canonical, pixels);
                  });
}

py::array_t<float> resize_normalize(const py::array& image, int height, int width, const std::array<float, 3>& mean,
                                    const std::array<float, 3>& std, bool swap_red_blue, bool mirror,
                                    const std::string& filter) {
  const btnet::ImageView view = image_view(image);
  Resampler resampler(btnet::parse_filter(filter));
  btnet::check_side("height", height);
  btnet::check_side("width", width);
  py::array_t<float> out({py::ssize_t{3}, py::ssize_t{height}, py::ssize_t{width}});
  float* planes = out.mutable_data();
  {
    const py::gil_scoped_release release;
    resampler.resize_normalize(view, height, width, {mean, std}, swap_red_blue, mirror, planes);
  }
  return out;
}

std::string simd() {
  switch (btnet::select_simd()) {
    case btnet::Simd::avx512:
      return "avx512";
    case btnet::Simd::avx2:
      return "avx2";
    case btnet::Simd::plain:
      break;
  }
  return "plain";
}

}  // namespace

void register_resample(py::module_& m) {
  m.attr("LONGEST_SIDE") = btnet::kLongestSide;
  m.def("resize", &resize, py::arg("image"), py::arg("height"), py::arg("width"), py::arg("filter"));
  m.def("degrade", &degrade, py::arg("image"), py::arg("resolution"), py::arg("canonical"), py::arg("filter"));
  m.def("resize_normalize", &resize_normalize, py::arg("image"), py::arg("height"), py::arg("width"), py::arg("mean"),
        py::arg("std"), py::arg("swap_red_blue"), py::arg("mirror"), py::arg("filter"));
  m.def("simd", &simd, "The code path of the resampler in this process: plain, avx2 or avx512 ($BTNET_SIMD).");
}
