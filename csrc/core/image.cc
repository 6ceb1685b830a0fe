#include "btnet/image.h"

#include <string>

#include "btnet/error.h"

namespace btnet {

ColorOrder parse_color_order(std::string_view name) {
  if (name == "rgb") return ColorOrder::rgb;
  if (name == "bgr") return ColorOrder::bgr;
  throw InvalidOption("color must be 'rgb' or 'bgr', not '" + std::string(name) + "'");
}

}  // namespace btnet
