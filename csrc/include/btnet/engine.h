#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/executor.h"
#include "btnet/image.h"

namespace btnet {

struct EngineOptions {
  std::string device = "cpu";       ///< "cpu"; "auto" is the same in C++ (for a GPU see btnet/pipeline.h)
  std::string precision = "f32";    ///< "f32"; "bf16" where the CPU has it; "int8" where the bundle has it
  std::string hint = "throughput";  ///< "throughput": many images a second; "latency": one request as soon as possible
  int threads = 0;                  ///< 0: all cores this process may use
  std::vector<int> resolutions = {};                 ///< a subset of the bundle's to select from; empty: all
  std::string indicator = "";                        ///< "max", "min", "avg"; empty: as the bundle says
  std::string rounding = "";                         ///< "floor", "near", "ceil"; empty: as the bundle says
  ColorOrder color = ColorOrder::rgb;                ///< channel order of the images that come in
  std::function<void(const std::string&)> log = {};  ///< told, in a sentence, of trouble that changes no result
};

struct EmbedOptions {
  bool flip = false;      ///< add the raw embedding of the mirror image (flip-sum)
  bool normalize = true;  ///< scale each embedding to length 1
  /// Called in the calling thread every 50 ms or so while it waits. What it throws cancels the call and comes out of
  /// it.
  std::function<void()> poll = {};
};

/// Embeds images of any resolution into one metric space, each through the branch made for its size.
///
/// All functions are const and may be called by several threads at once. A failure of one call leaves the engine
/// usable. An engine does not survive fork(): a child process that uses its parent's engine gets an Error.
class Engine {
 public:
  /// Opens a bundle and readies its networks on a device. Throws BundleError, InvalidOption, BackendUnavailable, and
  /// Error for want of threads, files or memory; where OpenVINO lacks them, it is a BundleError with OpenVINO's words.
  explicit Engine(const std::filesystem::path& bundle, const EngineOptions& options = {});

  /// The same with an executor of the caller's own; `device`, `precision`, `hint` and `threads` are then the executor's
  /// business and are not looked at. Throws InvalidOption for an executor that does not fit the bundle.
  Engine(Bundle bundle, std::unique_ptr<Executor> executor, const EngineOptions& options = {});

  ~Engine();
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;

  /// out: count x dim() float32; row i belongs to images[i]. Throws InvalidImage, which names the index, before any
  /// work, and Error if the executor fails or after fork().
  void embed(const ImageView* images, std::size_t count, float* out, const EmbedOptions& options = {}) const;

  /// out: count resolutions, the branch each image goes to. Throws InvalidImage, which names the index.
  void select(const ImageView* images, std::size_t count, int* out) const;

  int dim() const;
  const std::vector<int>& resolutions() const;  ///< those it selects from, ascending
  const Bundle& bundle() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace btnet
