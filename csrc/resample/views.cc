#include "resample/views.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "btnet/error.h"

namespace btnet {

void check_image(const ImageView& image) {
  if (image.data == nullptr) throw InvalidImage("image has a null pointer for its pixels");
  if (image.height < 1 || image.width < 1) {
    throw InvalidImage("image is " + std::to_string(image.height) + " x " + std::to_string(image.width) +
                       " pixels (height x width), expected at least 1 x 1");
  }
  if (std::max(image.height, image.width) > kLongestSide) {
    throw InvalidImage("image has a side of " + std::to_string(std::max(image.height, image.width)) +
                       " pixels, expected at most " + std::to_string(kLongestSide));
  }
  if (image.channels != 1 && image.channels != 3) {
    throw InvalidImage("image has " + std::to_string(image.channels) + " channels, expected 1 or 3");
  }
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
