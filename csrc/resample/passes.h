#pragma once

#include <cstdint>

#include "btnet/image.h"
#include "btnet/resample.h"
#include "resample/scratch.h"

namespace btnet {

/// How resized rows become the planes of a network's input.
struct Planes {
  float* out;            ///< 3 x height x width
  float mean[3];         ///< of each plane
  float inverse_std[3];  ///< of each plane
  int channel[3];        ///< of the image, for each plane
  bool mirror;
};

/// One resize, horizontal pass first. `image` is packed: its channels and the pixels of a row are adjacent; rows have
/// any stride.
struct Job {
  ImageView image;
  int height, width;
  Filter filter;
  std::uint8_t* out;     ///< height x width x image.channels, or null if there are planes to fill
  const Planes* planes;  ///< null for a plain resize
};

/// One row of pixels into the planes; also serves rows too narrow for a vector.
void normalize_row_plain(const Job& job, int y, const std::uint8_t* row);

void resize_plain(const Job& job, Scratch& scratch);
void resize_avx2(const Job& job, Scratch& scratch);
void resize_avx512(const Job& job, Scratch& scratch);

}  // namespace btnet
