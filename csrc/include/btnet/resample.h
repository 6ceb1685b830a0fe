#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "btnet/image.h"

namespace btnet {

/// Reconstruction filter. Cubic convolution has a = -0.5 (Keys 1981); the support of both grows with the down-scale
/// factor.
enum class Filter { bicubic, bilinear };

/// "bicubic" or "bilinear"; anything else throws InvalidOption.
Filter parse_filter(std::string_view name);

/// Instruction sets that the resampler has code for; all give the same bits.
enum class Simd { plain, avx2, avx512 };

/// The best one that this CPU runs, or the one that $BTNET_SIMD (plain, avx2, avx512) forces.
/// Throws InvalidOption where that names none of them, or one that the CPU lacks.
Simd select_simd();

/// How 0..255 becomes a network's input: (value - mean) * (1 / std) in float32, per channel of the *output*. No std is
/// 0.
struct Normalization {
  std::array<float, 3> mean;
  std::array<float, 3> std;
};

/// Resizes images to fixed sizes, bit-exact with Pillow's Image.resize(size, BICUBIC | BILINEAR).
///
/// Two passes, uint8 in between, taps in fixed point with 22 fractional bits. The horizontal pass comes first; as since
/// Pillow 13, the vertical one does where it takes away more than twice as many rows as the horizontal one columns.
/// A Resampler keeps its scratch memory between calls: use one per thread, from one thread at a time.
/// Every function throws InvalidImage for a view with a null pointer, a side below 1 or above 2^24 or channels other
/// than 1 and 3, and InvalidOption for an output side below 1.
class Resampler {
 public:
  /// Throws InvalidOption for instructions that this CPU lacks.
  explicit Resampler(Filter filter, Simd simd = select_simd());
  ~Resampler();
  Resampler(Resampler&&) noexcept;
  Resampler& operator=(Resampler&&) noexcept;

  /// out: height x width x image.channels, contiguous.
  void resize(const ImageView& image, int height, int width, std::uint8_t* out);

  /// Resize, normalise, and spread into planes, in one go. out: 3 x height x width float32, contiguous.
  /// `swap_red_blue` reverses the channels on the way (BGR pixels for an RGB network and the reverse); `mirror` flips
  /// the resized image left to right. A grey image fills all three planes.
  void resize_normalize(const ImageView& image, int height, int width, const Normalization& normalization,
                        bool swap_red_blue, bool mirror, float* out);

  /// Down to resolution x resolution and up again to canonical x canonical (Knoche et al. 2021, Eq. 1).
  /// out: canonical x canonical x image.channels, contiguous.
  void degrade(const ImageView& image, int resolution, int canonical, std::uint8_t* out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace btnet
