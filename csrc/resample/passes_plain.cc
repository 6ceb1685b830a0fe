#include <cstring>

#include "resample/passes.h"
#include "resample/taps.h"

namespace btnet {
namespace {

/// The taps of all output pixels of an axis; those of pixel i start at taps + i * stride.
struct TapTable {
  const Window* windows;
  const std::int32_t* taps;
  std::size_t stride;
};

template <Filter filter>
void fill_table(const Axis& axis, double* weights, Window* windows, std::int32_t* taps, std::size_t stride) {
  for (int i = 0; i < axis.out; ++i, taps += stride) {
    const Window window = windows[i] = make_window(axis, i);
    double sum = 0.0;
    for (int j = 0; j < window.count; ++j) {
      weights[j] = tap_weight<filter>(axis, window.center, static_cast<double>(window.first + j));
      sum += weights[j];
    }
    for (int j = 0; j < window.count; ++j) taps[j] = static_cast<std::int32_t>(fixed_tap(weights[j], sum));
  }
}

TapTable make_table(Filter filter, int in, int out, Scratch::Buffer buffer, Scratch& scratch) {
  const Axis axis = make_axis(filter, in, out);
  const std::size_t stride = max_taps(axis);
  auto* weights = static_cast<double*>(scratch.get(Scratch::weights, stride * sizeof(double)));
  auto* windows = static_cast<Window*>(scratch.get(buffer, out * (sizeof(Window) + stride * sizeof(std::int32_t))));
  auto* taps = reinterpret_cast<std::int32_t*>(windows + out);
  (filter == Filter::bicubic ? fill_table<Filter::bicubic> : fill_table<Filter::bilinear>)(axis, weights, windows, taps,
                                                                                           stride);
  return {windows, taps, stride};
}

template <int channels>
void resize_row(const std::uint8_t* in, const TapTable& table, int width, std::uint8_t* out) {
  for (int x = 0; x < width; ++x, out += channels) {
    const Window window = table.windows[x];
    const std::int32_t* taps = table.taps + x * table.stride;
    const std::uint8_t* pixels = in + static_cast<std::size_t>(window.first) * channels;
    std::int32_t sums[channels];
    for (int c = 0; c < channels; ++c) sums[c] = kTapHalf;
    for (int i = 0; i < window.count; ++i, pixels += channels) {
      for (int c = 0; c < channels; ++c) sums[c] += taps[i] * pixels[c];
    }
    for (int c = 0; c < channels; ++c) out[c] = clip8(sums[c]);
  }
}

/// One output row from `count` rows, each `size` bytes after the other.
void mix_rows(const std::uint8_t* rows, std::size_t size, const std::int32_t* taps, int count, std::int32_t* sums,
              std::uint8_t* out) {
  for (std::size_t i = 0; i < size; ++i) sums[i] = kTapHalf;
  for (int row = 0; row < count; ++row, rows += size) {
    for (std::size_t i = 0; i < size; ++i) sums[i] += taps[row] * rows[i];
  }
  for (std::size_t i = 0; i < size; ++i) out[i] = clip8(sums[i]);
}

void write_row(const Job& job, int y, const std::uint8_t* row) {
  const std::size_t size = static_cast<std::size_t>(job.width) * job.image.channels;
  if (job.planes != nullptr) {
    normalize_row_plain(job, y, row);
  } else {
    std::memcpy(job.out + y * size, row, size);
  }
}

}  // namespace

void normalize_row_plain(const Job& job, int y, const std::uint8_t* row) {
  const Planes& planes = *job.planes;
  for (int plane = 0; plane < 3; ++plane) {
    float* out = planes.out + (static_cast<std::size_t>(plane) * job.height + y) * job.width;
    for (int x = 0; x < job.width; ++x) {
      const int source = planes.mirror ? job.width - 1 - x : x;
      const std::uint8_t value = row[static_cast<std::size_t>(source) * job.image.channels + planes.channel[plane]];
      out[x] = (static_cast<float>(value) - planes.mean[plane]) * planes.inverse_std[plane];
    }
  }
}

void resize_plain(const Job& job, Scratch& scratch) {
  const ImageView& image = job.image;
  if (image.height == job.height && image.width == job.width) {
    for (int y = 0; y < job.height; ++y) write_row(job, y, image.data + y * image.row_stride);
    return;
  }
  const TapTable horizontal = make_table(job.filter, image.width, job.width, Scratch::horizontal_taps, scratch);
  const TapTable vertical = make_table(job.filter, image.height, job.height, Scratch::vertical_taps, scratch);

  const std::size_t size = static_cast<std::size_t>(job.width) * image.channels;
  auto* rows = static_cast<std::uint8_t*>(scratch.get(Scratch::rows, image.height * size));
  const auto resize = image.channels == 3 ? resize_row<3> : resize_row<1>;
  for (int y = 0; y < image.height; ++y) {
    resize(image.data + y * image.row_stride, horizontal, job.width, rows + y * size);
  }

  auto* sums = static_cast<std::int32_t*>(scratch.get(Scratch::columns, size * sizeof(std::int32_t)));
  auto* row = static_cast<std::uint8_t*>(scratch.get(Scratch::row, size));
  for (int y = 0; y < job.height; ++y) {
    const Window window = vertical.windows[y];
    mix_rows(rows + window.first * size, size, vertical.taps + y * vertical.stride, window.count, sums, row);
    write_row(job, y, row);
  }
}

}  // namespace btnet
