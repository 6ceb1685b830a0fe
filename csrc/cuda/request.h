#pragma once

#include <cstddef>
#include <map>
#include <vector>

#include "btnet/image.h"

/// What a call of embed asks for, and how it is cut into batches: plain arithmetic, no device.
namespace btnet::cuda {

/// What all batches of a call share.
struct Request {
  const SourceImage* images;
  std::vector<int> branch_of;  ///< the resolution that serves each image
  bool flip, normalize, swap_red_blue;

  int views() const { return flip ? 2 : 1; }  ///< rows that an image takes in a batch of its branch
};

/// Images [begin, end) of a request, which go to the device together.
struct Batch {
  std::size_t begin, end;
};

/// Bytes from one row to the next of an image that is copied to the device: a multiple of 16.
std::size_t staged_pitch(const ImageView& image);

/// Bytes that an image takes on its way to the device; none where it is there already.
std::size_t staged_bytes(const SourceImage& image);

/// How much may go to the device at a time.
class BatchLimits {
 public:
  /// bytes: of pixels that are copied. sizes: by resolution, the batches that the executor runs, ascending.
  BatchLimits(std::size_t bytes, std::map<int, std::vector<int>> sizes);

  /// The longest batch from `begin` on that keeps within the limits; at least one image.
  Batch next(const Request& request, std::size_t begin) const;

  /// The smallest size that holds `rows`, and the largest one of a resolution.
  int size_for(int resolution, int rows) const;
  int largest(int resolution) const { return sizes_.at(resolution).back(); }

  /// Halves what it can; false where nothing is left to halve.
  bool halve();

 private:
  std::size_t bytes_;
  std::map<int, std::vector<int>> sizes_;
};

}  // namespace btnet::cuda
