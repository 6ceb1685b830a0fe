#include "btnet/pipeline.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>
#include <utility>

#include "btnet/error.h"
#include "core/selector.h"
#include "cuda/device.h"
#include "cuda/lane.h"
#include "cuda/request.h"

namespace btnet {
namespace {

using cuda::Batch;
using cuda::BatchLimits;
using cuda::DeviceScope;
using cuda::Lane;
using cuda::Request;

// Of pixels that travel in one batch: long enough a copy for full speed, little enough to be pinned twice.
constexpr std::size_t kBatchBytes = std::size_t{64} << 20;

std::unique_ptr<DeviceExecutor> check_executor(std::unique_ptr<DeviceExecutor> executor, const Bundle& bundle,
                                               const std::vector<int>& resolutions) {
  if (!executor) throw InvalidOption("executor must not be null");
  if (executor->dim() != bundle.dim) {
    throw InvalidOption("the executor's embeddings have length " + std::to_string(executor->dim()) +
                        ", but the bundle's have " + std::to_string(bundle.dim));
  }
  for (const int resolution : resolutions) {
    const std::vector<int> sizes = executor->batch_sizes(resolution);
    int before = 0;
    for (const int size : sizes) {
      if (size <= before) throw InvalidOption("the executor's batch_sizes are not ascending, or not positive");
      before = size;
    }
    if (before < 2) {
      throw InvalidOption("the executor's batch_sizes(" + std::to_string(resolution) +
                          ") end below 2, an image and its mirror image");
    }
  }
  return executor;
}

BatchLimits first_limits(const DeviceExecutor& executor, const std::vector<int>& resolutions) {
  std::map<int, std::vector<int>> sizes;
  for (const int resolution : resolutions) sizes[resolution] = executor.batch_sizes(resolution);
  return {kBatchBytes, std::move(sizes)};
}

/// Lets one request after the other have the device.
class Turns {
 public:
  /// Waits for a turn, and polls meanwhile. Throws Error in the thread that has it: poll, or a signal handler that it
  /// runs, must not wait for itself.
  void take(const std::function<void()>& poll) {
    if (owner_ == std::this_thread::get_id()) throw Error("embed was called from within embed, in the same thread");
    while (!mutex_.try_lock_for(std::chrono::milliseconds(50))) {
      if (poll) poll();
    }
    owner_ = std::this_thread::get_id();
  }

  void give_back() noexcept {
    owner_ = std::thread::id();
    mutex_.unlock();
  }

 private:
  std::timed_mutex mutex_;
  std::atomic<std::thread::id> owner_;
};

/// A turn, given back at its end.
class Turn {
 public:
  Turn(Turns& turns, const std::function<void()>& poll) : turns_(turns) { turns_.take(poll); }
  ~Turn() { turns_.give_back(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Turns& turns_;
};

}  // namespace

struct Pipeline::State {
  State(Bundle opened, std::unique_ptr<DeviceExecutor> given, PipelineOptions chosen)
      : bundle(std::move(opened)),
        options(std::move(chosen)),
        selector(bundle, options.resolutions, options.indicator, options.rounding),
        executor(check_executor(std::move(given), bundle, selector.resolutions())),
        process(::getpid()),
        limits(first_limits(*executor, selector.resolutions())),
        lanes{Lane(bundle, *executor, 0, options.log), Lane(bundle, *executor, 1, options.log)} {}

  std::vector<int> select(const SourceImage* images, std::size_t count) const {
    std::vector<ImageView> views(count);
    for (std::size_t i = 0; i < count; ++i) views[i] = images[i].view;
    return selector.select(views.data(), count);
  }

  /// Embeds what is left of a request, and moves `done` on with every batch whose rows are in `out`.
  void run(const Request& request, float* out, std::size_t& done, const std::function<void()>& poll);

  /// Makes the next attempt take less memory, and says how; empty where it takes as little as it can.
  std::string shrink() {
    if (limits.halve()) return "going on with batches of half the size";
    if (lanes_used == 1) return {};
    lanes_used = 1;
    return "going on with one batch at a time";
  }

  /// After a failure, of which the device may still have work: nothing must run when the caller gets its memory back.
  void reset() {
    for (Lane& lane : lanes) lane.reset();
  }

  const Bundle bundle;
  const PipelineOptions options;
  const Selector selector;
  const std::unique_ptr<DeviceExecutor> executor;
  const pid_t process;
  Turns turns;  // of what follows
  BatchLimits limits;
  std::array<Lane, 2> lanes;
  std::size_t lanes_used = lanes.size();
};

void Pipeline::State::run(const Request& request, float* out, std::size_t& done, const std::function<void()>& poll) {
  const std::size_t count = request.branch_of.size();
  std::size_t started = done;
  for (std::size_t turn = 0; done < count; ++turn) {
    Lane& lane = lanes[turn % lanes_used];
    if (lane.busy()) {
      done = lane.finish(out);
      if (poll) poll();
    }
    if (started < count) {
      const Batch batch = limits.next(request, started);
      lane.start(request, batch, limits);
      started = batch.end;
    }
  }
}

Pipeline::Pipeline(Bundle bundle, std::unique_ptr<DeviceExecutor> executor, const PipelineOptions& options) {
  cuda::check_device(options.device);
  const DeviceScope scope(options.device);
  state_ = std::make_unique<State>(std::move(bundle), std::move(executor), options);
}

Pipeline::~Pipeline() {
  // In a forked child the driver answers nothing, and another thread's lock may be held for ever.
  if (state_ && state_->process != ::getpid()) state_.release();
  if (!state_) return;
  try {
    const DeviceScope scope(state_->options.device);
    state_.reset();
  } catch (const Error&) {  // the device is lost, and what was on it
  }
}

Pipeline::Pipeline(Pipeline&&) noexcept = default;

Pipeline& Pipeline::operator=(Pipeline&& other) noexcept {
  Pipeline taken(std::move(other));
  std::swap(state_, taken.state_);
  return *this;
}

void Pipeline::embed(const SourceImage* images, std::size_t count, float* out, const EmbedOptions& options) const {
  State& state = *state_;
  if (state.process != ::getpid()) {
    throw Error("this engine was made in another process, and CUDA does not survive fork(): make one in this one");
  }
  const bool swap = state.options.color != state.bundle.color;
  const Request request{images, state.select(images, count), options.flip, options.normalize, swap};
  const Turn turn(state.turns, options.poll);
  const DeviceScope scope(state.options.device);
  std::size_t done = 0;
  while (done < count) {
    try {
      state.run(request, out, done, options.poll);
    } catch (const OutOfMemory& error) {
      state.reset();
      state.executor->release_memory();
      const std::string change = state.shrink();
      if (change.empty()) throw;
      if (state.options.log) state.options.log(std::string(error.what()) + "; " + change);
    } catch (...) {
      state.reset();
      throw;
    }
  }
}

void Pipeline::select(const SourceImage* images, std::size_t count, int* out) const {
  const std::vector<int> selected = state_->select(images, count);
  std::copy(selected.begin(), selected.end(), out);
}

int Pipeline::dim() const { return state_->bundle.dim; }

const std::vector<int>& Pipeline::resolutions() const { return state_->selector.resolutions(); }

const Bundle& Pipeline::bundle() const { return state_->bundle; }

}  // namespace btnet
