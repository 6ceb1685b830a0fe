#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "resample/grouped_taps.h"
#include "resample/passes.h"
#include "resample/taps.h"

/// Both passes for vector units, over an instruction set `Isa` (passes_avx2.cc, passes_avx512.cc).
///
/// A 32-bit lane holds a group of Isa::group neighbouring samples along the axis that is resized, and one instruction
/// multiplies them by as many taps and adds the products up. Taps of 23 bits are too wide for it, so each is split into
/// Isa::digits signed digits, which are summed up apart and put together at the end. All of it is exact.
///
/// In both passes the lanes run across the other axis, so that all lanes share their taps: the horizontal pass takes
/// Isa::rows rows at once, with the channels of a pixel in as many vectors, and leaves them as groups of rows:
///   columns  [group of columns][channel]: one vector each, Isa::rows rows of one block
///   rows     [group of rows][x][channel]: one lane each
/// Groups start at multiples of Isa::group. All output pixels of an axis have the same number of groups; taps are zero
/// outside their windows.
///
/// Everything has internal linkage, see taps.h.

namespace btnet {
namespace {

constexpr int kLoadBytes = 16;  // that are read from each row of a block at a time
constexpr int kStoreLanes = 4;  // that are written to each group of rows for an output column

/// A number of groups that is known to the compiler; 0 stands for any.
template <int n>
struct Groups {
  static constexpr int fixed = n;
};

/// Calls `call` with the Groups for that number: the usual short windows have code of their own, without an inner loop.
template <class Call>
void with_groups(int groups, Call call) {
  switch (groups) {
    case 1:
      return call(Groups<1>());
    case 2:
      return call(Groups<2>());
    case 3:
      return call(Groups<3>());
    case 4:
      return call(Groups<4>());
    default:
      return call(Groups<0>());
  }
}

/// Rounded sums, not yet clipped to bytes, of `groups` groups in each of `vectors` vectors. Consecutive groups are
/// `stride` lanes apart.
template <class Isa, int fixed_groups, int vectors>
inline __attribute__((always_inline)) void weigh(const std::int32_t* lanes, std::size_t stride,
                                                 const std::int32_t* digits, int groups,
                                                 typename Isa::Ints (&sums)[vectors]) {
  typename Isa::Ints parts[Isa::digits][vectors];
  for (int v = 0; v < vectors; ++v) {
    parts[0][v] = Isa::set(kTapHalf);
    for (int d = 1; d < Isa::digits; ++d) parts[d][v] = Isa::set(0);
  }
  if (fixed_groups > 0) groups = fixed_groups;
#pragma GCC unroll 4
  for (int g = 0; g < groups; ++g, lanes += stride, digits += Isa::digits * kBlock) {
    for (int v = 0; v < vectors; ++v) {
      const auto samples = Isa::load(lanes + v * Isa::lanes);
      for (int d = 0; d < Isa::digits; ++d) {
        parts[d][v] = Isa::multiply_add(parts[d][v], samples, Isa::set(digits[d * kBlock]));
      }
    }
  }
  for (int v = 0; v < vectors; ++v) {
    sums[v] = parts[Isa::digits - 1][v];
    for (int d = Isa::digits - 2; d >= 0; --d) sums[v] = Isa::shift_add(sums[v], parts[d][v]);
    sums[v] = Isa::shift_down(sums[v]);
  }
}

/// The pixels of a block of rows as groups of columns.
template <class Isa, int channels>
void group_columns(const std::uint8_t* const (&rows)[Isa::rows], int width, std::int32_t* columns) {
  constexpr int chunk_columns = kLoadBytes / (4 * channels) * 4;  // whole groups of them in the bytes of one load
  constexpr int chunk_lanes = chunk_columns / Isa::group * channels * Isa::lanes;
  const std::size_t bytes = static_cast<std::size_t>(width) * channels;
  std::size_t at = 0;
  for (; at + kLoadBytes <= bytes; at += chunk_columns * channels, columns += chunk_lanes) {
    Isa::template group_chunk<channels>(rows, at, columns);
  }
  // A load of the last pixels would reach past the image: they are copied to where it may.
  std::uint8_t tails[Isa::rows][2 * kLoadBytes] = {};
  const std::uint8_t* tail_rows[Isa::rows];
  for (int r = 0; r < Isa::rows; ++r) {
    std::memcpy(tails[r], rows[r] + at, bytes - at);
    tail_rows[r] = tails[r];
  }
  for (std::size_t tail = 0; at < bytes; at += chunk_columns * channels, tail += chunk_columns * channels) {
    Isa::template group_chunk<channels>(tail_rows, tail, columns);
    columns += chunk_lanes;
  }
}

template <class Isa, int channels, int fixed_groups>
void horizontal_pass(const Job& job, const GroupedTaps& taps, std::int32_t* columns, std::int32_t* rows,
                     std::size_t row_lanes) {
  const ImageView& image = job.image;
  for (int y = 0; y < image.height; y += Isa::rows) {
    const std::uint8_t* block[Isa::rows];
    for (int r = 0; r < Isa::rows; ++r) {  // rows below the image only have to be readable: their taps are zero
      const int clamped = r < image.height - y ? y + r : image.height - 1;
      block[r] = image.data + clamped * image.row_stride;
    }
    group_columns<Isa, channels>(block, image.width, columns);
    std::int32_t* out = rows + y / Isa::group * row_lanes;
    for (int x = 0; x < job.width; ++x, out += channels) {
      typename Isa::Ints sums[channels];
      constexpr std::size_t group_lanes = channels * Isa::lanes;
      weigh<Isa, fixed_groups>(columns + taps.firsts[x] * group_lanes, group_lanes, find_digits<Isa>(taps, x),
                               taps.count, sums);
      Isa::store_column(sums, out, row_lanes);
    }
  }
}

template <class Isa, int fixed_groups>
void vertical_pass(const Job& job, const GroupedTaps& taps, const std::int32_t* rows, std::size_t row_lanes) {
  constexpr std::size_t lanes = Isa::lanes, wide = 4;
  const std::size_t size = static_cast<std::size_t>(job.width) * job.image.channels;
  for (int y = 0; y < job.height; ++y) {
    const std::int32_t* from = rows + taps.firsts[y] * row_lanes;
    const std::int32_t* digits = find_digits<Isa>(taps, y);
    std::uint8_t* out = job.out + y * size;
    std::size_t i = 0;
    for (; i + wide * lanes <= size; i += wide * lanes) {
      typename Isa::Ints sums[wide];
      weigh<Isa, fixed_groups>(from + i, row_lanes, digits, taps.count, sums);
      Isa::store_bytes(out + i, Isa::clip(sums));
    }
    for (; i < size; i += lanes) {
      typename Isa::Ints sums[1];
      weigh<Isa, fixed_groups>(from + i, row_lanes, digits, taps.count, sums);
      Isa::store_tail(sums[0], out + i, size - i < lanes ? size - i : lanes);
    }
  }
}

/// Writes Isa::lanes neighbouring pixels of a row into the three planes.
template <class Isa, int channels>
class Normalizer {
 public:
  explicit Normalizer(const Job& job)
      : planes_(*job.planes), width_(job.width), plane_size_(static_cast<std::size_t>(job.height) * job.width) {
    for (int plane = 0; plane < 3; ++plane) {
      order_[plane] = Isa::template pixel_order<channels>(planes_.channel[plane], planes_.mirror);
    }
  }

  /// The pixels from x on of row y.
  void operator()(typename Isa::Ints pixels, int y, int x) const {
    const int target = planes_.mirror ? width_ - Isa::lanes - x : x;
    float* out = planes_.out + static_cast<std::size_t>(y) * width_ + target;
    for (int plane = 0; plane < 3; ++plane, out += plane_size_) {
      const auto values = Isa::template pick<channels>(pixels, order_[plane], planes_.mirror);
      Isa::store_normalized(values, planes_.mean[plane], planes_.inverse_std[plane], out);
    }
  }

 private:
  const Planes planes_;
  const int width_;
  const std::size_t plane_size_;
  typename Isa::Ints order_[3];
};

/// The vertical pass straight into the planes.
template <class Isa, int channels, int fixed_groups>
void normalizing_pass(const Job& job, const GroupedTaps& taps, const std::int32_t* rows, std::size_t row_lanes) {
  const Normalizer<Isa, channels> normalize(job);
  for (int y = 0; y < job.height; ++y) {
    const std::int32_t* from = rows + taps.firsts[y] * row_lanes;
    const std::int32_t* digits = find_digits<Isa>(taps, y);
    for (int x = 0; x < job.width; x += Isa::lanes) {
      const int last = job.width - Isa::lanes;
      const int start = last < 0 ? 0 : (x < last ? x : last);  // at the end, some pixels are done again
      typename Isa::Ints sums[channels];
      weigh<Isa, fixed_groups>(from + start * channels, row_lanes, digits, taps.count, sums);
      if (last < 0) {
        std::uint8_t row[sizeof(typename Isa::Ints)];
        Isa::store_bytes(row, Isa::clip(sums));
        normalize_row_plain(job, y, row);
      } else {
        normalize(Isa::clip(sums), y, start);
      }
    }
  }
}

/// An image that has its size already.
template <class Isa, int channels>
void copy_pixels(const Job& job) {
  const std::size_t size = static_cast<std::size_t>(job.width) * channels;
  for (int y = 0; y < job.height; ++y) {
    const std::uint8_t* row = job.image.data + y * job.image.row_stride;
    if (job.planes == nullptr) {
      std::memcpy(job.out + y * size, row, size);
    } else if (job.width < Isa::lanes) {
      normalize_row_plain(job, y, row);
    } else {
      const Normalizer<Isa, channels> normalize(job);
      for (int x = 0; x < job.width; x += Isa::lanes) {
        const int start = x + Isa::lanes <= job.width ? x : job.width - Isa::lanes;
        normalize(Isa::template load_pixels<channels>(row + start * channels), y, start);
      }
    }
  }
}

/// The taps and the memory of one resize.
struct Grouped {
  GroupedTaps horizontal, vertical;
  std::int32_t *columns, *rows;
  std::size_t row_lanes;
};

template <class Isa, int channels>
Grouped prepare(const Job& job, Scratch& scratch) {
  const ImageView& image = job.image;
  Grouped grouped;
  grouped.horizontal = make_grouped<Isa>(job.filter, image.width, job.width, Scratch::horizontal_taps, scratch);
  const bool square = image.width == image.height && job.width == job.height;
  grouped.vertical = square ? grouped.horizontal
                            : make_grouped<Isa>(job.filter, image.height, job.height, Scratch::vertical_taps, scratch);

  const std::size_t width = image.width, height = image.height;
  const std::size_t column_lanes = round_up<std::size_t>(width, kLoadBytes) / Isa::group * channels * Isa::lanes;
  const std::size_t row_groups = round_up<std::size_t>(height, Isa::rows) / Isa::group;
  const std::size_t size = static_cast<std::size_t>(job.width) * channels;
  grouped.row_lanes = round_up<std::size_t>(size + kStoreLanes, 4 * Isa::lanes);
  const auto get_lanes = [&](Scratch::Buffer buffer, std::size_t lanes) {
    return static_cast<std::int32_t*>(scratch.get(buffer, lanes * sizeof(std::int32_t)));
  };
  grouped.columns = get_lanes(Scratch::columns, column_lanes);
  grouped.rows = get_lanes(Scratch::rows, row_groups * grouped.row_lanes);
  return grouped;
}

template <class Isa, int channels>
void run_horizontal(const Job& job, const Grouped& grouped) {
  with_groups(grouped.horizontal.count, [&](auto groups) {
    horizontal_pass<Isa, channels, decltype(groups)::fixed>(job, grouped.horizontal, grouped.columns, grouped.rows,
                                                            grouped.row_lanes);
  });
}

template <class Isa, int channels>
void run_vertical(const Job& job, const Grouped& grouped) {
  with_groups(grouped.vertical.count, [&](auto groups) {
    constexpr int fixed = decltype(groups)::fixed;
    if (job.planes == nullptr) {
      vertical_pass<Isa, fixed>(job, grouped.vertical, grouped.rows, grouped.row_lanes);
    } else {
      normalizing_pass<Isa, channels, fixed>(job, grouped.vertical, grouped.rows, grouped.row_lanes);
    }
  });
}

template <class Isa, int channels>
void resize_grouped(const Job& job, Scratch& scratch) {
  if (job.image.height == job.height && job.image.width == job.width) return copy_pixels<Isa, channels>(job);
  const Grouped grouped = prepare<Isa, channels>(job, scratch);
  run_horizontal<Isa, channels>(job, grouped);
  run_vertical<Isa, channels>(job, grouped);
}

template <class Isa>
void resize_with(const Job& job, Scratch& scratch) {
  (job.image.channels == 3 ? resize_grouped<Isa, 3> : resize_grouped<Isa, 1>)(job, scratch);
}

}  // namespace
}  // namespace btnet
