// Where the time of a resize goes, from inside: this includes the passes of one instruction set, to call their stages.
// benchmarks/resample.py compiles it with PASSES ("resample/passes_avx2.cc") and ISA (Avx2), and reads the JSON it
// prints: microseconds, medians.

#include PASSES

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace btnet {
namespace {

template <class Work>
double median_microseconds(Work work) {
  using Clock = std::chrono::steady_clock;
  std::vector<double> times;
  for (int round = 0; round < 301; ++round) {
    const auto start = Clock::now();
    for (int i = 0; i < 5; ++i) work();
    times.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count() / 5);
  }
  std::nth_element(times.begin(), times.begin() + 150, times.end());
  return times[150];
}

void print_stages(int in, int out) {
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(in) * in * 3),
      bytes(static_cast<std::size_t>(out) * out * 3);
  for (std::uint8_t& pixel : pixels) pixel = static_cast<std::uint8_t>(std::rand());
  std::vector<float> values(bytes.size());
  const Planes planes{values.data(), {127.5f, 127.5f, 127.5f}, {1.0f, 1.0f, 1.0f}, {0, 1, 2}, false};
  const ImageView image{pixels.data(), in, in, 3, std::ptrdiff_t{in} * 3, 3, 1};
  const Job job{image, out, out, Filter::bicubic, bytes.data(), nullptr};
  const Job fused{image, out, out, Filter::bicubic, nullptr, &planes};
  Scratch scratch;

  const double taps =
      median_microseconds([&] { make_grouped<ISA>(job.filter, in, out, Scratch::horizontal_taps, scratch); });
  const Grouped grouped = prepare<ISA, 3>(job, scratch);
  const double horizontal = median_microseconds([&] { run_horizontal<ISA, 3>(job, grouped); });
  const double vertical = median_microseconds([&] { run_vertical<ISA, 3>(job, grouped); });
  const double normalizing = median_microseconds([&] { run_vertical<ISA, 3>(fused, grouped); });
  const double total = median_microseconds([&] { resize_with<ISA>(job, scratch); });
  const double fused_total = median_microseconds([&] { resize_with<ISA>(fused, scratch); });
  std::printf("{\"taps\": %.3f, \"horizontal\": %.3f, \"vertical\": %.3f, \"normalizing_vertical\": %.3f, ", taps,
              horizontal, vertical, normalizing);
  std::printf("\"resize\": %.3f, \"resize_normalize\": %.3f}\n", total, fused_total);
}

}  // namespace
}  // namespace btnet

int main(int count, char** sizes) {
  for (int i = 1; i + 1 < count; i += 2) btnet::print_stages(std::atoi(sizes[i]), std::atoi(sizes[i + 1]));
}
