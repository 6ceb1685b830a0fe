#include "btnet/engine.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "btnet/error.h"
#include "core/aligned_memory.h"
#include "core/batching.h"
#include "core/selector.h"
#include "core/worker_pool.h"
#include "openvino/openvino_executor.h"

namespace btnet {
namespace {

constexpr int kPlanes = 3;

/// What one worker keeps between chunks.
struct Workspace {
  Resampler resampler;
  AlignedMemory input, output;  // float32 values
};

void scale_to_length_one(float* embedding, int dim) {
  double squares = 0.0;
  for (int k = 0; k < dim; ++k) squares += double{embedding[k]} * embedding[k];
  if (squares == 0.0) return;
  const double scale = 1.0 / std::sqrt(squares);
  for (int k = 0; k < dim; ++k) embedding[k] = static_cast<float>(embedding[k] * scale);
}

bool is_cuda_device(const std::string& device) {
  if (device == "cuda") return true;
  return device.size() > 5 && device.compare(0, 5, "cuda:") == 0 &&
         device.find_first_not_of("0123456789", 5) == std::string::npos;
}

std::unique_ptr<Executor> make_executor(const Bundle& bundle, const std::vector<int>& resolutions,
                                        const EngineOptions& options) {
  if (is_cuda_device(options.device)) {
    throw BackendUnavailable("device '" + options.device +
                             "' is not available: in C++ the engine runs on 'cpu'; in Python, device='cuda' does");
  }
  if (options.device != "cpu" && options.device != "auto") {
    throw InvalidOption("device must be 'cpu', 'auto', 'cuda' or 'cuda:N', not '" + options.device + "'");
  }
  return make_openvino_executor(bundle, resolutions, {options.precision, options.hint, options.threads, options.log});
}

std::unique_ptr<Executor> check_executor(std::unique_ptr<Executor> executor, const Bundle& bundle,
                                         const std::vector<int>& resolutions) {
  if (!executor) throw InvalidOption("executor must not be null");
  if (executor->dim() != bundle.dim) {
    throw InvalidOption("the executor's embeddings have length " + std::to_string(executor->dim()) +
                        ", but the bundle's have " + std::to_string(bundle.dim));
  }
  if (executor->slots() < 1) {
    throw InvalidOption("the executor must have a slot at least, not " + std::to_string(executor->slots()));
  }
  for (const int resolution : resolutions) {
    const int most = executor->max_batch(resolution);
    if (most < 2) {
      throw InvalidOption("the executor's max_batch(" + std::to_string(resolution) + ") is " + std::to_string(most) +
                          ", less than an image and its mirror image");
    }
  }
  return executor;
}

}  // namespace

struct Engine::State {
  State(Bundle opened, Selector chosen, ColorOrder color, std::unique_ptr<Executor> given)
      : bundle(std::move(opened)),
        selector(std::move(chosen)),
        executor(check_executor(std::move(given), bundle, selector.resolutions())),
        swap_red_blue(color != bundle.color),
        process(::getpid()),
        pool(executor->slots()) {
    for (int worker = 0; worker < pool.workers(); ++worker) workspaces.push_back({Resampler(bundle.filter), {}, {}});
  }

  void embed_chunk(const Chunk& chunk, const Plan& plan, const ImageView* images, float* out,
                   const EmbedOptions& options, int worker);

  const Bundle bundle;
  const Selector selector;
  const std::unique_ptr<Executor> executor;
  const bool swap_red_blue;
  const pid_t process;
  std::vector<Workspace> workspaces;  // one a worker
  WorkerPool pool;                    // last, so that its threads end before what they use does
};

void Engine::State::embed_chunk(const Chunk& chunk, const Plan& plan, const ImageView* images, float* out,
                                const EmbedOptions& options, int worker) {
  Workspace& space = workspaces[worker];
  const int side = chunk.resolution;
  const int views = options.flip ? 2 : 1;  // the image, and its mirror image in the row after it
  const int rows = static_cast<int>(chunk.end - chunk.begin) * views;
  const std::size_t pixels = std::size_t{kPlanes} * side * side;
  const std::size_t dim = bundle.dim;
  auto* input = static_cast<float*>(space.input.reserve(rows * pixels * sizeof(float)));
  auto* output = static_cast<float*>(space.output.reserve(rows * dim * sizeof(float)));

  for (int row = 0; row < rows; ++row) {
    const ImageView& image = images[plan.order[chunk.begin + row / views]];
    space.resampler.resize_normalize(image, side, side, bundle.normalization, swap_red_blue, row % views == 1,
                                     input + row * pixels);
  }
  executor->run(side, rows, input, output, worker);
  for (int row = 0; row < rows; row += views) {
    float* embedding = out + plan.order[chunk.begin + row / views] * dim;
    std::copy_n(output + row * dim, dim, embedding);
    if (options.flip) {
      const float* mirrored = output + (row + 1) * dim;
      std::transform(embedding, embedding + dim, mirrored, embedding, std::plus<>());
    }
    if (options.normalize) scale_to_length_one(embedding, bundle.dim);
  }
}

Engine::Engine(const std::filesystem::path& bundle, const EngineOptions& options) {
  Bundle opened = Bundle::open(bundle);
  Selector selector(opened, options.resolutions, options.indicator, options.rounding);
  auto executor = make_executor(opened, selector.resolutions(), options);
  state_ = std::make_unique<State>(std::move(opened), std::move(selector), options.color, std::move(executor));
}

Engine::Engine(Bundle bundle, std::unique_ptr<Executor> executor, const EngineOptions& options) {
  Selector selector(bundle, options.resolutions, options.indicator, options.rounding);
  state_ = std::make_unique<State>(std::move(bundle), std::move(selector), options.color, std::move(executor));
}

Engine::~Engine() {
  // In a forked child the threads are gone while their locks may be held: ending them properly would wait for ever.
  if (state_ && state_->process != ::getpid()) state_.release();
}

Engine::Engine(Engine&&) noexcept = default;

Engine& Engine::operator=(Engine&& other) noexcept {
  Engine taken(std::move(other));
  std::swap(state_, taken.state_);
  return *this;
}

void Engine::embed(const ImageView* images, std::size_t count, float* out, const EmbedOptions& options) const {
  State& state = *state_;
  if (state.process != ::getpid()) {
    throw Error("this engine was made in another process, and its threads do not survive fork(): make one in this one");
  }
  const int views = options.flip ? 2 : 1;
  const auto max_chunk = [&](int resolution) { return state.executor->max_batch(resolution) / views; };
  const Plan plan = plan_chunks(state.selector.select(images, count), max_chunk, state.pool.workers());
  state.pool.run(
      plan.chunks.size(),
      [&](std::size_t chunk, int worker) { state.embed_chunk(plan.chunks[chunk], plan, images, out, options, worker); },
      options.poll);
}

void Engine::select(const ImageView* images, std::size_t count, int* out) const {
  const std::vector<int> selected = state_->selector.select(images, count);
  std::copy(selected.begin(), selected.end(), out);
}

int Engine::dim() const { return state_->bundle.dim; }

const std::vector<int>& Engine::resolutions() const { return state_->selector.resolutions(); }

const Bundle& Engine::bundle() const { return state_->bundle; }

}  // namespace btnet
