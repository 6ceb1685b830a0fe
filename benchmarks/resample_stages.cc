// Where the time of a resize goes, from inside: this includes the passes of one instruction set, to call their stages.
// benchmarks/resample.py compiles it with PASSES ("resample/passes_avx2.cc") and ISA (Avx2), and reads the JSON it
// prints: microseconds, a value a round. All stages take turns, so that a slow spell hits all of them.

#include PASSES

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <utility>
#include <vector>

namespace btnet {
namespace {

constexpr int kRounds = 301, kCalls = 5;

using Stages = std::vector<std::pair<const char*, std::function<void()>>>;

void print_times(const Stages& stages) {
  using Clock = std::chrono::steady_clock;
  std::vector<std::vector<double>> times(stages.size());
  for (int round = 0; round < kRounds; ++round) {
    for (std::size_t i = 0; i < stages.size(); ++i) {
      const auto start = Clock::now();
      for (int call = 0; call < kCalls; ++call) stages[i].second();
      times[i].push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count() / kCalls);
    }
  }
  for (std::size_t i = 0; i < stages.size(); ++i) {
    std::printf("%s\"%s\": [", i == 0 ? "{" : ", ", stages[i].first);
    for (int round = 0; round < kRounds; ++round) std::printf("%s%.3f", round == 0 ? "" : ", ", times[i][round]);
    std::printf("]");
  }
  std::printf("}\n");
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

  const Grouped grouped = prepare<ISA, 3>(job, scratch);
  Scratch own;  // what is prepared above stays as it is
  print_times({
      {"taps", [&] { make_grouped<ISA>(job.filter, in, out, Scratch::horizontal_taps, own); }},
      {"horizontal", [&] { run_horizontal<ISA, 3>(job, grouped); }},
      {"vertical", [&] { run_vertical<ISA, 3>(job, grouped); }},
      {"normalizing_vertical", [&] { run_vertical<ISA, 3>(fused, grouped); }},
      {"resize", [&] { resize_with<ISA>(job, own); }},
      {"resize_normalize", [&] { resize_with<ISA>(fused, own); }},
  });
}

}  // namespace
}  // namespace btnet

int main(int count, char** sizes) {
  for (int i = 1; i + 1 < count; i += 2) btnet::print_stages(std::atoi(sizes[i]), std::atoi(sizes[i + 1]));
}
