// GCC 12 takes the undefined vectors of its own header for mistakes (its bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#include "resample/grouped_passes.h"

namespace btnet {
namespace {

/// AVX-512 with VNNI and VBMI. A group is four bytes; a tap is three balanced digits of 8 bits.
struct Avx512 {
  using Ints = __m512i;
  static constexpr int lanes = 16;
  static constexpr int rows = 16;
  static constexpr int group = 4;
  static constexpr int digits = 3;

  static Ints set(std::int32_t value) { return _mm512_set1_epi32(value); }
  static Ints load(const std::int32_t* lanes) { return _mm512_loadu_si512(lanes); }
  static Ints multiply_add(Ints sum, Ints samples, Ints taps) { return _mm512_dpbusd_epi32(sum, samples, taps); }
  static Ints shift_add(Ints high, Ints low) { return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low); }
  static Ints shift_down(Ints sum) { return _mm512_srai_epi32(sum, kTapBits); }

  static Ints each_lane(__m128i value) { return _mm512_broadcast_i32x4(value); }

  /// 16 bytes of the rows first, first + 4, first + 8 and first + 12.
  static Ints load_rows(const std::uint8_t* const (&block)[rows], int first, std::size_t at) {
    const auto row = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(block[first + r] + at)); };
    Ints value = _mm512_castsi128_si512(row(0));
    value = _mm512_inserti32x4(value, row(4), 1);
    value = _mm512_inserti32x4(value, row(8), 2);
    return _mm512_inserti32x4(value, row(12), 3);
  }

  template <int channels>
  static void group_chunk(const std::uint8_t* const (&block)[rows], std::size_t at, std::int32_t* columns) {
    const Ints a = load_rows(block, 0, at), b = load_rows(block, 1, at);
    const Ints c = load_rows(block, 2, at), d = load_rows(block, 3, at);
    if (channels == 3) {
      // Red, green and blue of four pixels fill three quarters of a vector of a, b and c; d goes into the last ones.
      const Ints rgb = each_lane(_mm_setr_epi8(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11, 0, 0, 0, 0));
      const auto channel = [](int i) { return _mm512_set1_epi32(0x09060300 + i * 0x01010101); };
      constexpr __mmask64 last = 0xF000F000F000F000;
      store(columns, _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(a, rgb), last, d, channel(0)));
      store(columns + 16, _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(b, rgb), last, d, channel(1)));
      store(columns + 32, _mm512_mask_shuffle_epi8(_mm512_shuffle_epi8(c, rgb), last, d, channel(2)));
    } else {
      const Ints ab_low = _mm512_unpacklo_epi32(a, b), ab_high = _mm512_unpackhi_epi32(a, b);
      const Ints cd_low = _mm512_unpacklo_epi32(c, d), cd_high = _mm512_unpackhi_epi32(c, d);
      store(columns, _mm512_unpacklo_epi64(ab_low, cd_low));
      store(columns + 16, _mm512_unpackhi_epi64(ab_low, cd_low));
      store(columns + 32, _mm512_unpacklo_epi64(ab_high, cd_high));
      store(columns + 48, _mm512_unpackhi_epi64(ab_high, cd_high));
    }
  }

  static void store(std::int32_t* lanes, Ints value) { _mm512_store_si512(lanes, value); }

  /// Clips the sums of an output column to bytes and writes its groups of rows, `row_lanes` apart; each write is
  /// kStoreLanes wide, and the column after it overwrites what is too much.
  template <int channels>
  static void store_column(const Ints (&sums)[channels], std::int32_t* out, std::size_t row_lanes) {
    Ints bytes;
    if constexpr (channels == 3) {
      bytes = _mm512_packus_epi16(_mm512_packs_epi32(sums[0], sums[1]), _mm512_packs_epi32(sums[2], sums[2]));
      bytes =
          _mm512_shuffle_epi8(bytes, each_lane(_mm_setr_epi8(0, 4, 8, 3, 1, 5, 9, 7, 2, 6, 10, 11, -1, -1, -1, -1)));
    } else {
      const Ints words = _mm512_packs_epi32(sums[0], sums[0]);
      bytes = _mm512_packus_epi16(words, words);
    }
    const auto store_quarter = [&](int r, __m128i quarter) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * row_lanes), quarter);
    };
    store_quarter(0, _mm512_castsi512_si128(bytes));
    store_quarter(1, _mm512_extracti32x4_epi32(bytes, 1));
    store_quarter(2, _mm512_extracti32x4_epi32(bytes, 2));
    store_quarter(3, _mm512_extracti32x4_epi32(bytes, 3));
  }

  /// Clips the sums to bytes, in the order of their lanes; fewer than four vectors leave the rest undefined.
  template <int vectors>
  static Ints clip(const Ints (&sums)[vectors]) {
    const auto sum = [&](int i) { return sums[i < vectors ? i : vectors - 1]; };
    const Ints bytes = _mm512_packus_epi16(_mm512_packs_epi32(sum(0), sum(1)), _mm512_packs_epi32(sum(2), sum(3)));
    const Ints order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, bytes);
  }

  static void store_bytes(std::uint8_t* out, Ints bytes) { _mm512_storeu_si512(out, bytes); }

  static void store_tail(Ints sums, std::uint8_t* out, std::size_t count) {
    const Ints positive = _mm512_max_epi32(sums, _mm512_setzero_si512());
    _mm512_mask_cvtusepi32_storeu_epi8(out, static_cast<__mmask16>((1u << count) - 1), positive);
  }

  /// The bytes of `lanes` pixels, and of nothing after them.
  template <int channels>
  static Ints load_pixels(const std::uint8_t* pixels) {
    return _mm512_maskz_loadu_epi8((std::uint64_t{1} << (lanes * channels)) - 1, pixels);
  }

  /// For pick(): where the bytes of a channel are.
  template <int channels>
  static Ints pixel_order(int channel, bool mirror) {
    const Ints forward = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const Ints pixel = mirror ? _mm512_sub_epi32(set(lanes - 1), forward) : forward;
    return _mm512_add_epi32(_mm512_mullo_epi32(pixel, set(channels)), set(channel));
  }

  /// One channel of the pixels, a lane each.
  template <int channels>
  static Ints pick(Ints pixels, Ints order, bool) {
    constexpr __mmask64 lowest_bytes = 0x1111111111111111;
    return _mm512_maskz_permutexvar_epi8(lowest_bytes, order, pixels);
  }

  static void store_normalized(Ints pixels, float mean, float inverse_std, float* out) {
    const __m512 centered = _mm512_sub_ps(_mm512_cvtepi32_ps(pixels), _mm512_set1_ps(mean));
    _mm512_storeu_ps(out, _mm512_mul_ps(centered, _mm512_set1_ps(inverse_std)));
  }
};

}  // namespace

void resize_avx512(const Job& job, Scratch& scratch) { resize_with<Avx512>(job, scratch); }

}  // namespace btnet
