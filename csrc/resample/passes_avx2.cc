#include <immintrin.h>

#include "resample/grouped_passes.h"

namespace btnet {
namespace {

/// AVX2. A group is two 16-bit words; a tap is two of them, the lower one balanced.
struct Avx2 {
  using Ints = __m256i;
  static constexpr int lanes = 8;
  static constexpr int rows = 8;
  static constexpr int group = 2;
  static constexpr int digits = 2;

  static Ints set(std::int32_t value) { return _mm256_set1_epi32(value); }
  static Ints load(const std::int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const Ints*>(from)); }
  static void store(std::int32_t* to, Ints value) { _mm256_store_si256(reinterpret_cast<Ints*>(to), value); }
  static Ints each_lane(__m128i value) { return _mm256_broadcastsi128_si256(value); }

  static Ints multiply_add(Ints sum, Ints samples, Ints taps) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(samples, taps));
  }
  static Ints shift_add(Ints high, Ints low) { return _mm256_add_epi32(_mm256_slli_epi32(high, 16), low); }
  static Ints shift_down(Ints sum) { return _mm256_srai_epi32(sum, kTapBits); }

  /// 16 bytes of the rows first and first + 4.
  static Ints load_rows(const std::uint8_t* const (&block)[rows], int first, std::size_t at) {
    const auto row = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(block[first + r] + at)); };
    return _mm256_inserti128_si256(_mm256_castsi128_si256(row(0)), row(4), 1);
  }

  /// Four samples in the order 0, 2, 1, 3 in each lane become groups of two words, `apart` lanes from each other.
  static void store_words(std::int32_t* columns, int apart, Ints bytes) {
    store(columns, _mm256_and_si256(bytes, _mm256_set1_epi16(0xFF)));
    store(columns + apart, _mm256_srli_epi16(bytes, 8));
  }

  template <int channels>
  static void group_chunk(const std::uint8_t* const (&block)[rows], std::size_t at, std::int32_t* columns) {
    const Ints a = load_rows(block, 0, at), b = load_rows(block, 1, at);
    const Ints c = load_rows(block, 2, at), d = load_rows(block, 3, at);
    if constexpr (channels == 3) {
      // Red, green and blue of four pixels fill three quarters of a vector of a, b and c; d goes into the last ones.
      const Ints rgb = each_lane(_mm_setr_epi8(0, 6, 3, 9, 1, 7, 4, 10, 2, 8, 5, 11, -1, -1, -1, -1));
      const auto merge = [&](Ints three, int channel) {
        const Ints last = each_lane(_mm_setr_epi32(-1, -1, -1, 0x09030600 + channel * 0x01010101));
        return _mm256_or_si256(_mm256_shuffle_epi8(three, rgb), _mm256_shuffle_epi8(d, last));
      };
      store_words(columns, 24, merge(a, 0));
      store_words(columns + 8, 24, merge(b, 1));
      store_words(columns + 16, 24, merge(c, 2));
    } else {
      const Ints ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
      const Ints cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
      const Ints swap = each_lane(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
      store_words(columns, 8, _mm256_shuffle_epi8(_mm256_unpacklo_epi64(ab_low, cd_low), swap));
      store_words(columns + 16, 8, _mm256_shuffle_epi8(_mm256_unpackhi_epi64(ab_low, cd_low), swap));
      store_words(columns + 32, 8, _mm256_shuffle_epi8(_mm256_unpacklo_epi64(ab_high, cd_high), swap));
      store_words(columns + 48, 8, _mm256_shuffle_epi8(_mm256_unpackhi_epi64(ab_high, cd_high), swap));
    }
  }

  /// Clips the sums of an output column to bytes and writes its groups of rows, `row_lanes` apart; each write is
  /// kStoreLanes wide, and the column after it overwrites what is too much.
  template <int channels>
  static void store_column(const Ints (&sums)[channels], std::int32_t* out, std::size_t row_lanes) {
    Ints first, second;  // two groups of two rows for each half
    if constexpr (channels == 3) {
      const Ints bytes =
          _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[2]));
      first = _mm256_shuffle_epi8(bytes,
                                  each_lane(_mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, -1, -1, -1, -1)));
      second = _mm256_shuffle_epi8(
          bytes, each_lane(_mm_setr_epi8(8, -1, 3, -1, 9, -1, 7, -1, 10, -1, 11, -1, -1, -1, -1, -1)));
    } else {
      const Ints words = _mm256_packs_epi32(sums[0], sums[0]);
      const Ints bytes = _mm256_packus_epi16(words, words);
      first = _mm256_unpacklo_epi8(bytes, _mm256_setzero_si256());
      second = _mm256_srli_epi64(first, 32);
    }
    const auto store_half = [&](int r, __m128i half) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * row_lanes), half);
    };
    store_half(0, _mm256_castsi256_si128(first));
    store_half(1, _mm256_castsi256_si128(second));
    store_half(2, _mm256_extracti128_si256(first, 1));
    store_half(3, _mm256_extracti128_si256(second, 1));
  }

  /// Clips the sums to bytes, in the order of their lanes; fewer than four vectors leave the rest undefined.
  template <int vectors>
  static Ints clip(const Ints (&sums)[vectors]) {
    const auto sum = [&](int i) { return sums[i < vectors ? i : vectors - 1]; };
    const Ints bytes = _mm256_packus_epi16(_mm256_packs_epi32(sum(0), sum(1)), _mm256_packs_epi32(sum(2), sum(3)));
    return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }

  static void store_bytes(std::uint8_t* out, Ints bytes) { _mm256_storeu_si256(reinterpret_cast<Ints*>(out), bytes); }

  static void store_tail(Ints sums, std::uint8_t* out, std::size_t count) {
    const Ints one[1] = {sums};
    const std::int64_t bytes = _mm_cvtsi128_si64(_mm256_castsi256_si128(clip(one)));
    std::memcpy(out, &bytes, count);
  }

  /// The bytes of `lanes` pixels, and of nothing after them.
  template <int channels>
  static Ints load_pixels(const std::uint8_t* pixels) {
    if constexpr (channels == 1) {
      return _mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels)));
    } else {
      return _mm256_set_m128i(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(pixels + 16)),
                              _mm_loadu_si128(reinterpret_cast<const __m128i*>(pixels)));
    }
  }

  /// For pick(): where the bytes of a channel are.
  template <int channels>
  static Ints pixel_order(int channel, bool mirror) {
    const auto at = [&](int i) {
      const int pixel = mirror ? lanes - 1 - i : i;
      // Each half of pick() has bytes of its own: those from 0 on for pixels 0 to 3, from 8 on (or 0) for the others.
      const int begin = pixel < 4 || channels == 1 ? 0 : 8;
      return (pixel * channels + channel - begin) | ~0xFF;
    };
    return _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7));
  }

  /// One channel of the pixels, a lane each.
  template <int channels>
  static Ints pick(Ints pixels, Ints order, bool mirror) {
    const Ints halves = channels == 1 ? _mm256_permute4x64_epi64(pixels, _MM_SHUFFLE(0, 0, 0, 0))
                        : mirror      ? _mm256_permute4x64_epi64(pixels, _MM_SHUFFLE(1, 0, 2, 1))
                                      : _mm256_permute4x64_epi64(pixels, _MM_SHUFFLE(2, 1, 1, 0));
    return _mm256_shuffle_epi8(halves, order);
  }

  static void store_normalized(Ints pixels, float mean, float inverse_std, float* out) {
    const __m256 centered = _mm256_sub_ps(_mm256_cvtepi32_ps(pixels), _mm256_set1_ps(mean));
    _mm256_storeu_ps(out, _mm256_mul_ps(centered, _mm256_set1_ps(inverse_std)));
  }
};

}  // namespace

void resize_avx2(const Job& job, Scratch& scratch) { resize_with<Avx2>(job, scratch); }

}  // namespace btnet
