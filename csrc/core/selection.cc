#include "btnet/selection.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "btnet/error.h"

namespace btnet {
namespace {

int indicate(int width, int height, Indicator indicator) {
  switch (indicator) {
    case Indicator::max:
      return std::max(width, height);
    case Indicator::min:
      return std::min(width, height);
    case Indicator::avg:
      break;
  }
  // Not (width + height) / 2, which overflows.
  return width / 2 + height / 2 + (width % 2 + height % 2) / 2;
}

}  // namespace

Indicator parse_indicator(std::string_view name) {
  if (name == "max") return Indicator::max;
  if (name == "min") return Indicator::min;
  if (name == "avg") return Indicator::avg;
  throw InvalidOption("indicator must be 'max', 'min' or 'avg', not '" + std::string(name) + "'");
}

Rounding parse_rounding(std::string_view name) {
  if (name == "floor") return Rounding::floor;
  if (name == "near") return Rounding::near;
  if (name == "ceil") return Rounding::ceil;
  throw InvalidOption("rounding must be 'floor', 'near' or 'ceil', not '" + std::string(name) + "'");
}

int select_resolution(int width, int height, const std::vector<int>& resolutions, Indicator indicator,
                      Rounding rounding) {
  const int side = indicate(width, height, indicator);
  const auto above = std::lower_bound(resolutions.begin(), resolutions.end(), side);
  if (above == resolutions.end()) return resolutions.back();
  if (*above == side || above == resolutions.begin()) return *above;
  const auto below = std::prev(above);
  switch (rounding) {
    case Rounding::floor:
      return *below;
    case Rounding::ceil:
      return *above;
    case Rounding::near:
      break;
  }
  return side - *below <= *above - side ? *below : *above;
}

}  // namespace btnet
