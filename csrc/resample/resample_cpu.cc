#include <cstddef>
#include <string>
#include <utility>

#include "btnet/error.h"
#include "btnet/resample.h"
#include "core/environment.h"
#include "resample/passes.h"
#include "resample/taps.h"
#include "resample/views.h"

namespace btnet {
namespace {

bool cpu_has(Simd simd) {
#if defined(__x86_64__)
  switch (simd) {
    case Simd::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") &&
             __builtin_cpu_supports("avx512vbmi");
    case Simd::avx2:
      return __builtin_cpu_supports("avx2");
    case Simd::plain:
      return true;
  }
#endif
  return simd == Simd::plain;
}

constexpr std::pair<Simd, const char*> kNames[] = {
    {Simd::avx512, "avx512"}, {Simd::avx2, "avx2"}, {Simd::plain, "plain"}};

using Passes = void (*)(const Job&, Scratch&);

Passes find_passes(Simd simd) {
  if (!cpu_has(simd)) throw InvalidOption("simd must be instructions that this CPU has, as select_simd() gives them");
#if defined(__x86_64__)
  if (simd == Simd::avx512) return resize_avx512;
  if (simd == Simd::avx2) return resize_avx2;
#endif
  return resize_plain;
}

/// The image itself where its pixels are adjacent already, else a copy of it.
ImageView pack(const ImageView& image, Scratch& scratch) {
  if (is_packed(image)) return image;
  const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(image.width) * image.channels;
  auto* copy = static_cast<std::uint8_t*>(scratch.get(Scratch::packed_image, pitch * image.height));
  copy_packed(image, pitch, copy);
  return packed_view(copy, image.height, image.width, image.channels, pitch);
}

}  // namespace

Filter parse_filter(std::string_view name) {
  if (name == "bicubic") return Filter::bicubic;
  if (name == "bilinear") return Filter::bilinear;
  throw InvalidOption("filter must be 'bicubic' or 'bilinear', not '" + std::string(name) + "'");
}

Simd select_simd() {
  const auto forced = environment("BTNET_SIMD");
  for (const auto& [simd, name] : kNames) {
    if (!forced && cpu_has(simd)) return simd;
    if (forced != name) continue;
    if (!cpu_has(simd)) throw InvalidOption("BTNET_SIMD is " + *forced + ", and this CPU lacks it");
    return simd;
  }
  throw InvalidOption("BTNET_SIMD must be plain, avx2 or avx512, not '" + forced.value_or("") + "'");
}

struct Resampler::State {
  Filter filter;
  Passes passes;
  Scratch scratch;

  /// Checks, packs the image, and runs the passes in Pillow's order. One of `out` and `planes` is null.
  void resize(const ImageView& image, int height, int width, std::uint8_t* out, const Planes* planes);
};

void Resampler::State::resize(const ImageView& image, int height, int width, std::uint8_t* out, const Planes* planes) {
  check_image(image);
  check_side("height", height);
  check_side("width", width);
  ImageView source = pack(image, scratch);
  if (vertical_first(source.height, source.width, height, width)) {
    const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(source.width) * source.channels;
    auto* half_way = static_cast<std::uint8_t*>(scratch.get(Scratch::half_way, pitch * height));
    passes({source, height, source.width, filter, half_way, nullptr}, scratch);
    source = packed_view(half_way, height, source.width, source.channels, pitch);
  }
  passes({source, height, width, filter, out, planes}, scratch);
}

Resampler::Resampler(Filter filter, Simd simd) : state_(new State{filter, find_passes(simd), {}}) {}
Resampler::~Resampler() = default;
Resampler::Resampler(Resampler&&) noexcept = default;
Resampler& Resampler::operator=(Resampler&&) noexcept = default;

void Resampler::resize(const ImageView& image, int height, int width, std::uint8_t* out) {
  state_->resize(image, height, width, out, nullptr);
}

void Resampler::resize_normalize(const ImageView& image, int height, int width, const Normalization& normalization,
                                 bool swap_red_blue, bool mirror, float* out) {
  Planes planes{};
  planes.out = out;
  planes.mirror = mirror;
  for (int plane = 0; plane < 3; ++plane) {
    planes.mean[plane] = normalization.mean[plane];
    planes.inverse_std[plane] = 1.0f / normalization.std[plane];
    planes.channel[plane] = image.channels == 1 ? 0 : (swap_red_blue ? 2 - plane : plane);
  }
  state_->resize(image, height, width, nullptr, &planes);
}

void Resampler::degrade(const ImageView& image, int resolution, int canonical, std::uint8_t* out) {
  check_image(image);
  check_side("resolution", resolution);
  check_side("canonical", canonical);
  const std::ptrdiff_t pitch = static_cast<std::ptrdiff_t>(resolution) * image.channels;
  auto* small = static_cast<std::uint8_t*>(state_->scratch.get(Scratch::small_image, pitch * resolution));
  resize(image, resolution, resolution, small);
  resize(packed_view(small, resolution, resolution, image.channels, pitch), canonical, canonical, out);
}

}  // namespace btnet
