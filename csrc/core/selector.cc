#include "core/selector.h"

#include <algorithm>

#include "btnet/error.h"

namespace btnet {
namespace {

std::string listed(const std::vector<int>& values) {
  std::string text;
  for (const int value : values) text += (text.empty() ? "" : ", ") + std::to_string(value);
  return text;
}

std::vector<int> choose_resolutions(const Bundle& bundle, std::vector<int> wanted) {
  if (wanted.empty()) return bundle.resolutions;
  std::sort(wanted.begin(), wanted.end());
  wanted.erase(std::unique(wanted.begin(), wanted.end()), wanted.end());
  for (const int resolution : wanted) {
    if (!std::binary_search(bundle.resolutions.begin(), bundle.resolutions.end(), resolution)) {
      throw InvalidOption("resolutions names " + std::to_string(resolution) + ", but the bundle " + bundle.name +
                          " has branches for " + listed(bundle.resolutions));
    }
  }
  return wanted;
}

void check_image(const ImageView& image, std::size_t index) {
  const std::string name = "images[" + std::to_string(index) + "]";
  if (image.height < 1 || image.width < 1) {
    throw InvalidImage(name + " has no pixels: it is " + std::to_string(image.height) + " high and " +
                       std::to_string(image.width) + " wide");
  }
  if (std::max(image.height, image.width) > kLongestSide) {
    throw InvalidImage(name + " has a side of " + std::to_string(std::max(image.height, image.width)) +
                       " pixels, expected at most " + std::to_string(kLongestSide));
  }
  if (image.channels != 1 && image.channels != 3) {
    throw InvalidImage(name + " has " + std::to_string(image.channels) + " channels, expected 3 (or 1: grey)");
  }
  if (image.data == nullptr) throw InvalidImage(name + " has a null pointer for its pixels");
}

}  // namespace

Selector::Selector(const Bundle& bundle, const std::vector<int>& resolutions, const std::string& indicator,
                   const std::string& rounding)
    : resolutions_(choose_resolutions(bundle, resolutions)),
      indicator_(indicator.empty() ? bundle.indicator : parse_indicator(indicator)),
      rounding_(rounding.empty() ? bundle.rounding : parse_rounding(rounding)) {}

std::vector<int> Selector::select(const ImageView* images, std::size_t count) const {
  std::vector<int> selected(count);
  for (std::size_t i = 0; i < count; ++i) {
    check_image(images[i], i);
    selected[i] = select_resolution(images[i].width, images[i].height, resolutions_, indicator_, rounding_);
  }
  return selected;
}

}  // namespace btnet
