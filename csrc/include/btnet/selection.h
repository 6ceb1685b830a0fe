#pragma once

#include <string_view>
#include <vector>

namespace btnet {

/// How the size of an image becomes one number: the longer side, the shorter side, or their mean (W + H) / 2, rounded
/// down.
enum class Indicator { max, min, avg };

/// How that number becomes one of the resolutions that a bundle has.
enum class Rounding { floor, near, ceil };

/// "max", "min" or "avg"; anything else throws InvalidOption.
Indicator parse_indicator(std::string_view name);

/// "floor", "near" or "ceil"; anything else throws InvalidOption.
Rounding parse_rounding(std::string_view name);

/// Branch selection (He et al., BMVC 2023, Fig. 8): the resolution whose branch serves an image of this size.
///
/// ceil takes the smallest resolution that is not below the indicator, floor the largest not above it, near the closest
/// one (a tie goes to the smaller). Outside the range of `resolutions` the nearest one serves.
/// `resolutions` must be ascending and not empty; `width` and `height` are in pixels and positive.
int select_resolution(int width, int height, const std::vector<int>& resolutions, Indicator indicator,
                      Rounding rounding);

}  // namespace btnet
