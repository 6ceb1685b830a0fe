#pragma once

#include <cstddef>
#include <cstdint>

#include "resample/passes.h"
#include "resample/taps.h"

/// The taps of grouped_passes.h, made for four output pixels at a time. Everything has internal linkage, see taps.h.

namespace btnet {
namespace {

template <class T>
T round_up(T value, T step) {
  return (value + step - 1) / step * step;
}

constexpr int kBlock = 4;  // output pixels whose taps are made side by side, and lie side by side in GroupedTaps
using Doubles = double __attribute__((vector_size(kBlock * sizeof(double))));
using Words = std::uint32_t __attribute__((vector_size(kBlock * sizeof(std::uint32_t))));
using SignedWords = std::int32_t __attribute__((vector_size(kBlock * sizeof(std::int32_t))));

/// The taps of an axis, split into digits. Every output pixel has `count` groups, the first of them firsts[i].
struct GroupedTaps {
  int count;
  const int* firsts;
  const std::int32_t* digits;  ///< [block of kBlock pixels][group][digit][pixel of the block]
};

template <class Isa>
const std::int32_t* find_digits(const GroupedTaps& taps, int pixel) {
  const auto index = static_cast<std::size_t>(pixel);
  return taps.digits + index / kBlock * taps.count * Isa::digits * kBlock + index % kBlock;
}

/// The windows of an axis and their first groups; returns how many groups the longest window spans.
template <class Isa>
int find_groups(const Axis& axis, Window* windows, int* firsts) {
  int count = 1;
  for (int i = 0; i < axis.out; ++i) {
    const Window window = windows[i] = make_window(axis, i);
    firsts[i] = window.first / Isa::group;
    const int span = (window.first + window.count - 1) / Isa::group + 1 - firsts[i];
    count = span > count ? span : count;
  }
  // With that many groups, a short window at the far end would run out of the image.
  const int last = (axis.in + Isa::group - 1) / Isa::group - count;
  for (int i = 0; i < axis.out; ++i) firsts[i] = firsts[i] > last ? last : firsts[i];
  return count;
}

/// The digits of kBlock output pixels. weights: room for count * Isa::group.
template <class Isa, Filter filter>
void fill_block(const Axis& axis, const Window* windows, const int* firsts, int count, Doubles* weights,
                Words* digits) {
  Doubles center, start, first, end, sum{};
  const Doubles zero{};
  for (int l = 0; l < kBlock; ++l) {
    center[l] = windows[l].center;
    start[l] = firsts[l] * Isa::group;
    first[l] = windows[l].first;
    end[l] = windows[l].first + windows[l].count;
  }
  for (int i = 0; i < count * Isa::group; ++i) {
    const Doubles x = start + static_cast<double>(i);
    const Doubles weight = tap_weight<filter>(axis, center, x);
    const Doubles not_before = x < first ? zero : weight;
    weights[i] = x < end ? not_before : zero;
    sum += weights[i];
  }
  // Adding half a digit's range to each digit but the highest makes it unsigned, plain bits of the sum; flipping its
  // top bit then takes the half off again.
  constexpr int bits = 32 / Isa::group;
  constexpr std::uint32_t mask = (std::uint64_t{1} << bits) - 1;
  constexpr std::uint32_t halves = Isa::digits == 3 ? 0x8080 : 0x8000;
  for (int g = 0; g < count; ++g, weights += Isa::group, digits += Isa::digits) {
    for (int d = 0; d < Isa::digits; ++d) digits[d] = Words{};
    for (int k = 0; k < Isa::group; ++k) {
      const SignedWords taps = __builtin_convertvector(fixed_tap(weights[k], sum), SignedWords);
      const Words biased = (reinterpret_cast<const Words&>(taps) + halves) ^ halves;
      for (int d = 0; d < Isa::digits; ++d) digits[d] |= (biased >> (d * bits) & mask) << (k * bits);
    }
  }
}

template <class Isa, Filter filter>
void fill_digits(const Axis& axis, const Window* windows, const int* firsts, int count, Doubles* weights,
                 Words* digits) {
  for (int i = 0; i < axis.out; i += kBlock, digits += count * Isa::digits) {
    fill_block<Isa, filter>(axis, windows + i, firsts + i, count, weights, digits);
  }
}

template <class Isa>
GroupedTaps make_grouped(Filter filter, int in, int out, Scratch::Buffer buffer, Scratch& scratch) {
  const Axis axis = make_axis(filter, in, out);
  const std::size_t most_groups = (max_taps(axis) + 2 * Isa::group - 2) / Isa::group;
  const std::size_t blocks = round_up(out, kBlock) / kBlock;
  const std::size_t words = blocks * most_groups * Isa::digits;
  auto* digits = static_cast<Words*>(
      scratch.get(buffer, words * sizeof(Words) + blocks * kBlock * (sizeof(Window) + sizeof(int))));
  auto* windows = reinterpret_cast<Window*>(digits + words);
  auto* firsts = reinterpret_cast<int*>(windows + blocks * kBlock);
  auto* weights = static_cast<Doubles*>(scratch.get(Scratch::weights, most_groups * Isa::group * sizeof(Doubles)));

  const int count = find_groups<Isa>(axis, windows, firsts);
  for (std::size_t i = out; i < blocks * kBlock; ++i) {  // the last block is full, too
    windows[i] = windows[out - 1];
    firsts[i] = firsts[out - 1];
  }
  (filter == Filter::bicubic ? fill_digits<Isa, Filter::bicubic>
                             : fill_digits<Isa, Filter::bilinear>)(axis, windows, firsts, count, weights, digits);
  return {count, firsts, reinterpret_cast<const std::int32_t*>(digits)};
}

}  // namespace
}  // namespace btnet
