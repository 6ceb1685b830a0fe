#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "btnet/image.h"

/// Views of images, as the resamplers of CPU and GPU alike want them.
namespace btnet {

/// What is wrong with an image, as a sentence that lacks its subject: a side below 1 or above kLongestSide, channels
/// other than 1 and 3, or a null pointer. Empty where nothing is.
std::string image_fault(const ImageView& image);

/// Throws InvalidImage for such a fault.
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
