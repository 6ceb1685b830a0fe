#pragma once

#include <cmath>
#include <cstdint>

#include "btnet/resample.h"

/// The arithmetic that makes a resize bit-exact with Pillow (src/libImaging/Resample.c): which source pixels an output
/// pixel is made of, their weights in double, these as fixed-point taps, and how a sum of taps times pixels becomes a
/// byte. Used by the CPU code and by CUDA kernels; both must be compiled without fused multiply-add. Every function has
/// internal linkage: a file compiled for AVX-512 must not lend its machine code to the rest of the program.

#ifdef __CUDACC__
#define BTNET_HOST_DEVICE __host__ __device__
#else
#define BTNET_HOST_DEVICE
#endif

namespace btnet {

constexpr int kTapBits = 22;  ///< fractional bits of a tap: 32, less 8 of a pixel, sign and overshoot
constexpr std::int32_t kTapOne = 1 << kTapBits;  ///< weight 1.0
constexpr std::int32_t kTapHalf = kTapOne / 2;   ///< what every sum starts with, so that the shift rounds to nearest

/// Which pass comes first. Bytes are rounded between the passes, so the order shows in the result. Horizontal first,
/// but Pillow 13 begins with the rows where they are cut down by more than twice as many pixels as the columns.
BTNET_HOST_DEVICE static inline bool vertical_first(int in_height, int in_width, int out_height, int out_width) {
  const std::int64_t fewer_rows = static_cast<std::int64_t>(in_height) - out_height;
  const std::int64_t fewer_columns = static_cast<std::int64_t>(in_width) - out_width;
  return fewer_rows > 0 && fewer_rows > 2 * fewer_columns;
}

/// One axis of a resize from `in` to `out` pixels.
struct Axis {
  int in, out;
  double scale;          ///< source pixels an output pixel
  double support;        ///< half the width of the filter, in source pixels
  double inverse_scale;  ///< from source pixels to the filter's own unit
};

/// The source pixels first .. first + count - 1, around `center` (where pixel i covers i .. i + 1).
struct Window {
  int first, count;
  double center;
};

BTNET_HOST_DEVICE static inline Axis make_axis(Filter filter, int in, int out) {
  const double scale = static_cast<double>(in) / out;
  const double filter_scale = scale < 1.0 ? 1.0 : scale;
  const double radius = filter == Filter::bicubic ? 2.0 : 1.0;
  return {in, out, scale, radius * filter_scale, 1.0 / filter_scale};
}

/// No window of the axis has more pixels than this.
BTNET_HOST_DEVICE static inline int max_taps(const Axis& axis) {
  const int taps = static_cast<int>(ceil(axis.support)) * 2 + 1;
  return taps < axis.in ? taps : axis.in;
}

BTNET_HOST_DEVICE static inline Window make_window(const Axis& axis, int index) {
  const double center = (index + 0.5) * axis.scale;
  if (axis.in == axis.out) return {index, 1, center};  // Pillow leaves such an axis alone: a single tap of 1.0
  const int first = static_cast<int>(center - axis.support + 0.5);
  const int end = static_cast<int>(center + axis.support + 0.5);
  const int clipped_first = first < 0 ? 0 : first;
  const int clipped_end = end > axis.in ? axis.in : end;
  return {clipped_first, clipped_end - clipped_first, center};
}

/// The filter at distance x from its center. Number is double, or a vector of doubles for several pixels at once.
template <Filter filter, class Number>
BTNET_HOST_DEVICE static inline Number filter_value(Number x) {
  const Number zero{};
  const Number distance = x < 0.0 ? -x : x;
  if (filter == Filter::bilinear) {
    const Number value = 1.0 - distance;
    return distance < 1.0 ? value : zero;
  }
  constexpr double a = -0.5;
  const Number inner = ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0;
  const Number outer = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a;
  const Number tail = distance < 2.0 ? outer : zero;
  return distance < 1.0 ? inner : tail;
}

/// The weight of source pixel x for the output pixel with that center, before weights are scaled to sum 1.
template <Filter filter, class Number>
BTNET_HOST_DEVICE static inline Number tap_weight(const Axis& axis, Number center, Number x) {
  return filter_value<filter>((x - center + 0.5) * axis.inverse_scale);
}

/// A weight, scaled by the sum of its window, in fixed point: what rounds half away from zero once it is truncated.
template <class Number>
BTNET_HOST_DEVICE static inline Number fixed_tap(Number weight, Number sum) {
  const Number scaled = weight / sum * static_cast<double>(kTapOne);
  const Number below = scaled - 0.5, above = scaled + 0.5;
  return scaled < 0.0 ? below : above;
}

/// kTapHalf plus the sum of taps times pixels, as a pixel again.
BTNET_HOST_DEVICE static inline std::uint8_t clip8(std::int32_t sum) {
  const std::int32_t value = sum >> kTapBits;
  return static_cast<std::uint8_t>(value < 0 ? 0 : (value > 255 ? 255 : value));
}

}  // namespace btnet
