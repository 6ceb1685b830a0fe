#include "cuda/request.h"

#include <algorithm>
#include <utility>

namespace btnet::cuda {
namespace {

constexpr std::size_t kAlignment = 16;
constexpr int kViews = 2;                                  // of an image: itself, and its mirror image
constexpr std::size_t kLeastBytes = std::size_t{1} << 16;  // fewer pixels at a time would free nothing worth it

}  // namespace

std::size_t staged_pitch(const ImageView& image) {
  const std::size_t bytes = static_cast<std::size_t>(image.width) * image.channels;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

std::size_t staged_bytes(const SourceImage& image) {
  return image.on_device ? 0 : staged_pitch(image.view) * image.view.height;
}

BatchLimits::BatchLimits(std::size_t bytes, std::map<int, std::vector<int>> sizes)
    : bytes_(bytes), sizes_(std::move(sizes)) {}

Batch BatchLimits::next(const Request& request, std::size_t begin) const {
  std::map<int, int> rows;
  std::size_t bytes = 0, end = begin;
  for (; end < request.branch_of.size(); ++end) {
    const int resolution = request.branch_of[end];
    const int more = rows[resolution] + request.views();
    bytes += staged_bytes(request.images[end]);
    if (end > begin && (bytes > bytes_ || more > largest(resolution))) break;
    rows[resolution] = more;
  }
  return {begin, end};
}

int BatchLimits::size_for(int resolution, int rows) const {
  const std::vector<int>& sizes = sizes_.at(resolution);
  return *std::lower_bound(sizes.begin(), sizes.end(), rows);
}

bool BatchLimits::halve() {
  bool halved = bytes_ > kLeastBytes;
  if (halved) bytes_ /= 2;
  for (auto& [resolution, sizes] : sizes_) {
    const int most = sizes.back() / 2;
    // The one before the last must still hold an image and its mirror image.
    while (sizes.size() > 1 && sizes.back() > most && sizes[sizes.size() - 2] >= kViews) {
      sizes.pop_back();
      halved = true;
    }
  }
  return halved;
}

}  // namespace btnet::cuda
