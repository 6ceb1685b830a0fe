#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/image.h"
#include "btnet/selection.h"

namespace btnet {

/// Decides which branch of a bundle each image of a request goes to.
class Selector {
 public:
  /// resolutions: a subset of the bundle's, empty for all; indicator and rounding: empty for what the bundle says.
  /// Throws InvalidOption.
  Selector(const Bundle& bundle, const std::vector<int>& resolutions, const std::string& indicator,
           const std::string& rounding);

  const std::vector<int>& resolutions() const { return resolutions_; }  ///< ascending

  /// The resolution for each image. Throws InvalidImage, which names the index, for one without pixels, with a side
  /// above 2^24, with channels other than 1 and 3, or with a null pointer; the pixels are not looked at.
  std::vector<int> select(const ImageView* images, std::size_t count) const;

 private:
  std::vector<int> resolutions_;
  Indicator indicator_;
  Rounding rounding_;
};

}  // namespace btnet
