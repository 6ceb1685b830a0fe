#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace btnet {

/// Order of the three colour channels of an image in memory.
enum class ColorOrder { rgb, bgr };

/// "rgb" or "bgr"; anything else throws InvalidOption.
ColorOrder parse_color_order(std::string_view name);

/// The longest side of an image, in pixels. Positions in what is resized stay far from the limits of an int.
constexpr int kLongestSide = 1 << 24;

/// A uint8 image that somebody else owns: sides up to kLongestSide, any strides (negative ones too), never written to.
///
/// Pixel (y, x), channel c is at data + y * row_stride + x * column_stride + c * channel_stride; strides are in bytes.
/// One channel is grey (taken as three equal channels by networks), three are colour.
struct ImageView {
  const std::uint8_t* data;
  int height, width, channels;
  std::ptrdiff_t row_stride, column_stride, channel_stride;
};

/// An image in host memory, or in that of the GPU that is to embed it. Whatever writes it there must have finished
/// before, since no stream of the caller's is waited for, and it must stay until embed returns.
struct SourceImage {
  ImageView view;
  bool on_device = false;
};

}  // namespace btnet
