#pragma once

#include <cstddef>
#include <cstdint>

#include "btnet/image.h"

/// Views of images, as the resamplers of CPU and GPU alike want them.
namespace btnet {

/// Throws InvalidImage for a null pointer, a side below 1 or above kLongestSide, or channels other than 1 and 3.
void check_image(const ImageView& image);

/// Throws InvalidOption for a side of the output below 1; `name` is what the caller calls it.
void check_side(const char* name, int side);

/// Whether the channels of a pixel, and the pixels of a row, are adjacent.
bool is_packed(const ImageView& image);

/// The view of a packed image at `data`, whose rows are `pitch` bytes apart.
ImageView packed_view(const std::uint8_t* data, int height, int width, int channels, std::ptrdiff_t pitch);

/// Copies the pixels of an image, of any strides, into a packed one with rows `pitch` bytes apart.
void copy_packed(const ImageView& image, std::ptrdiff_t pitch, std::uint8_t* out);

}  // namespace btnet
