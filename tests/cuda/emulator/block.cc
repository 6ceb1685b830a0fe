#include "emulator/block.h"

#include <algorithm>
#include <array>
#include <exception>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "emulator/fiber.h"

// The linker gives the ends of the section that emulator.h puts `__shared__` variables into, if there are any.
extern "C" {
extern unsigned char __start_emulated_shared[] __attribute__((weak));
extern unsigned char __stop_emulated_shared[] __attribute__((weak));
}

namespace emulator {
namespace {

constexpr unsigned kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr unsigned kMaxThreads = 1024, kMaxThreadsZ = 64, kMaxGridYZ = 65535;
constexpr std::size_t kMaxShared = std::size_t{48} << 10;  // what every GPU gives unless it is asked for more

enum class State { ready, at_barrier, in_warp, finished };

struct Thread {
  Fiber* fiber;
  uint3 index;
  State state = State::ready;
  const char* file = nullptr;  // of the barrier where it waits
  int line = 0;
};

/// An operation of the lanes of one mask. A lane may begin the next one before the others have read what is there.
struct Exchange {
  unsigned mask, arrived = 0, round = 0;
  std::array<std::array<std::uint64_t, kWarp>, 2> values{};
};

struct Emulator {
  unsigned order = 0;
  std::vector<std::unique_ptr<Fiber>> fibers;  // kept between launches
  std::vector<Thread> threads;
  std::vector<std::vector<std::unique_ptr<Exchange>>> warps;
  unsigned current = 0;  // thread
  Position position{};
  std::vector<std::uint64_t> shared;  // no larger than asked for: AddressSanitizer sees what goes beyond
  const std::function<void()>* kernel = nullptr;
  std::exception_ptr error;
};

Emulator& emulator() {
  static Emulator one;
  return one;
}

std::string to_text(uint3 index) {
  return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
}

uint3 to_index(unsigned number, dim3 size) {
  return make_uint3(number % size.x, number / size.x % size.y, number / (size.x * size.y));
}

void run_thread() {
  Emulator& e = emulator();
  try {
    (*e.kernel)();
  } catch (...) {
    if (!e.error) e.error = std::current_exception();
  }
  e.threads[e.current].state = State::finished;
  Fiber::finish();
}

/// Between the variables is what AddressSanitizer lets nobody write.
__attribute__((no_sanitize("address"))) void poison(unsigned char* begin, unsigned char* end) {
  for (volatile unsigned char* byte = begin; byte != end; ++byte) *byte = 0xff;
}

void start_block() {
  Emulator& e = emulator();
  poison(__start_emulated_shared, __stop_emulated_shared);
  std::fill(e.shared.begin(), e.shared.end(), ~std::uint64_t{0});
  for (auto& warp : e.warps) warp.clear();
  for (Thread& thread : e.threads) {
    thread.state = State::ready;
    thread.fiber->restart(run_thread);
  }
}

/// Gives every thread that can run a turn; false if there was none.
bool run_ready(const std::vector<unsigned>& order) {
  Emulator& e = emulator();
  bool any = false;
  for (const unsigned number : order) {
    Thread& thread = e.threads[number];
    if (thread.state != State::ready) continue;
    any = true;
    e.current = number;
    e.position.thread = thread.index;
    thread.fiber->resume();
    if (e.error) std::rethrow_exception(std::exchange(e.error, nullptr));
  }
  return any;
}

[[noreturn]] void fail_at(const Thread& thread, const std::string& message) {
  Emulator& e = emulator();
  e.position.thread = thread.index;
  fail(message);
}

/// Lets the threads go on that wait at a barrier, once nobody else can run.
void pass_barrier() {
  Emulator& e = emulator();
  const Thread* first = nullptr;
  const Thread* exited = nullptr;
  for (const Thread& thread : e.threads) {
    if (thread.state == State::in_warp) fail_at(thread, "deadlock: a warp operation waits for lanes that do not come");
    if (thread.state == State::finished) exited = &thread;
    if (thread.state != State::at_barrier) continue;
    if (first == nullptr) first = &thread;
    if (thread.line != first->line || std::string(thread.file) != first->file) {
      fail_at(thread, "threads wait at different barriers, in lines " + std::to_string(first->line) + " and " +
                          std::to_string(thread.line));
    }
  }
  if (exited != nullptr) fail_at(*exited, "a thread ended without reaching the barrier where others wait");
  for (Thread& thread : e.threads) thread.state = State::ready;
}

void run_block(const std::vector<unsigned>& order) {
  Emulator& e = emulator();
  start_block();
  const auto finished = [](const Thread& thread) { return thread.state == State::finished; };
  while (!std::all_of(e.threads.begin(), e.threads.end(), finished)) {
    if (!run_ready(order)) pass_barrier();
  }
}

void check_launch(dim3 grid, dim3 block, std::size_t shared_bytes) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > kMaxGridYZ || grid.z > kMaxGridYZ) {
    throw Error("launch with a grid of " + to_text({grid.x, grid.y, grid.z}) + " blocks");
  }
  const std::size_t threads = std::size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || block.z > kMaxThreadsZ) {
    throw Error("launch with blocks of " + to_text({block.x, block.y, block.z}) + " threads");
  }
  if (shared_bytes > kMaxShared) {
    throw Error("launch with " + std::to_string(shared_bytes) + " bytes of shared memory");
  }
}

}  // namespace

void set_order(unsigned order) { emulator().order = order; }

void run(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  Emulator& e = emulator();
  check_launch(grid, block, shared_bytes);
  const unsigned threads = block.x * block.y * block.z;
  while (e.fibers.size() < threads) e.fibers.push_back(std::make_unique<Fiber>());
  e.threads.clear();
  for (unsigned i = 0; i < threads; ++i) e.threads.push_back({e.fibers[i].get(), to_index(i, block)});
  e.warps.clear();
  e.warps.resize((threads + kWarp - 1) / kWarp);
  e.shared.assign((shared_bytes + 7) / 8, 0);
  e.shared.shrink_to_fit();
  e.kernel = &kernel;
  e.position.block_size = block;
  e.position.grid_size = grid;

  std::vector<unsigned> order(threads);
  std::iota(order.begin(), order.end(), 0u);
  if (e.order == 1) std::reverse(order.begin(), order.end());
  std::mt19937 random(e.order);
  const unsigned blocks = grid.x * grid.y * grid.z;
  for (unsigned i = 0; i < blocks; ++i) {
    e.position.block = to_index(e.order == 1 ? blocks - 1 - i : i, grid);
    if (e.order > 1) std::shuffle(order.begin(), order.end(), random);
    run_block(order);
  }
}

const Position& position() { return emulator().position; }

void* dynamic_shared() { return emulator().shared.data(); }

void synchronize(const char* file, int line) {
  Emulator& e = emulator();
  Thread& thread = e.threads[e.current];
  thread.file = file;
  thread.line = line;
  thread.state = State::at_barrier;
  Fiber::pause();
}

const std::uint64_t* exchange(unsigned mask, std::uint64_t value_bits) {
  Emulator& e = emulator();
  const unsigned warp = e.current / kWarp, mine = lane();
  const unsigned lanes = std::min<unsigned>(kWarp, e.threads.size() - warp * kWarp);  // of this warp
  if ((mask >> mine & 1) == 0) fail("a warp operation is called by a lane that is not in its mask");
  if (lanes < kWarp && mask == kAllLanes) mask = (1u << lanes) - 1;  // means all that there are
  for (unsigned i = 0; i < kWarp; ++i) {
    if ((mask >> i & 1) == 0) continue;
    if (i >= lanes) fail("the mask of a warp operation names lanes past the block");
    if (e.threads[warp * kWarp + i].state == State::finished) {
      fail("the mask of a warp operation names a lane that has ended");
    }
  }
  auto& exchanges = e.warps[warp];
  auto found = std::find_if(exchanges.begin(), exchanges.end(), [&](const auto& other) { return other->mask == mask; });
  if (found == exchanges.end()) found = exchanges.insert(exchanges.end(), std::make_unique<Exchange>(Exchange{mask}));
  Exchange& one = **found;
  auto& values = one.values[one.round % one.values.size()];
  values[mine] = value_bits;
  one.arrived |= 1u << mine;
  if (one.arrived != mask) {
    e.threads[e.current].state = State::in_warp;
    Fiber::pause();
    return values.data();
  }
  one.arrived = 0;
  ++one.round;
  for (unsigned i = 0; i < lanes; ++i) {
    Thread& thread = e.threads[warp * kWarp + i];
    if ((mask >> i & 1) != 0 && thread.state == State::in_warp) thread.state = State::ready;
  }
  return values.data();
}

unsigned lane() { return emulator().current % kWarp; }

void fail(const std::string& message) {
  const Position& at = position();
  throw Error(message + " [block " + to_text(at.block) + ", thread " + to_text(at.thread) + "]");
}

}  // namespace emulator
