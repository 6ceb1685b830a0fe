#include "resample/views.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "btnet/error.h"

namespace btnet {

std::string image_fault(const ImageView& image) {
  if (image.height < 1 || image.width < 1) {
    return "has no pixels: it is " + std::to_string(image.height) + " high and " + std::to_string(image.width) +
           " wide";
  }
  if (std::max(image.height, image.width) > kLongestSide) {
    return "has a side of " + std::to_string(std::max(image.height, image.width)) + " pixels, expected at most " +
           std::to_string(kLongestSide);
  }
  if (image.channels != 1 && image.channels != 3) {
    return "has " + std::to_string(image.channels) + " channels, expected 3 (or 1: grey)";
  }
  return image.data == nullptr ? "has a null pointer for its pixels" : "";
}

void check_image(const ImageView& image) {
  const std::string fault = image_fault(image);
  if (!fault.empty()) throw InvalidImage("image " + fault);
}

void check_side(const char* name, int side) {
  if (side < 1) throw InvalidOption(std::string(name) + " is " + std::to_string(side) + ", expected at least 1");
}

bool is_packed(const ImageView& image) {
  return image.column_stride == image.channels && (image.channels == 1 || image.channel_stride == 1);
}

ImageView packed_view(const std::uint8_t* data, int height, int width, int channels, std::ptrdiff_t pitch) {
  return {data, height, width, channels, pitch, channels, 1};
}

void copy_packed(const ImageView& image, std::ptrdiff_t pitch, std::uint8_t* out) {
  const bool packed = is_packed(image);
  for (int y = 0; y < image.height; ++y) {
    const std::uint8_t* row = image.data + y * image.row_stride;
    std::uint8_t* to = out + y * pitch;
    if (packed) {
      std::memcpy(to, row, static_cast<std::size_t>(image.width) * image.channels);
      continue;
    }
    for (int x = 0; x < image.width; ++x) {
      for (int c = 0; c < image.channels; ++c) *to++ = row[x * image.column_stride + c * image.channel_stride];
    }
  }
}

}  // namespace btnet
