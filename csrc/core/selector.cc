#include "core/selector.h"

#include <algorithm>

#include "btnet/error.h"
#include "core/text.h"
#include "resample/views.h"

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
      throw InvalidOption("resolutions names " + std::to_string(resolution) + ", but the bundle " +
                          one_line(bundle.name) + " has branches for " + listed(bundle.resolutions));
    }
  }
  return wanted;
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
    const std::string fault = image_fault(images[i]);
    if (!fault.empty()) throw InvalidImage("images[" + std::to_string(i) + "] " + fault);
    selected[i] = select_resolution(images[i].width, images[i].height, resolutions_, indicator_, rounding_);
  }
  return selected;
}

}  // namespace btnet
