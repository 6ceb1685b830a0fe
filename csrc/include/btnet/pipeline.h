#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/device_executor.h"
#include "btnet/engine.h"
#include "btnet/image.h"

namespace btnet {

struct PipelineOptions {
  int device = 0;
  std::vector<int> resolutions = {};                 ///< as in EngineOptions
  std::string indicator = "";                        ///< as in EngineOptions
  std::string rounding = "";                         ///< as in EngineOptions
  ColorOrder color = ColorOrder::rgb;                ///< channel order of the images that come in
  std::function<void(const std::string&)> log = {};  ///< told, in a sentence, of trouble that changes no result
};

/// Embeds images of any resolution on a GPU: what Engine is on a CPU, and with the same results.
///
/// A request is cut into batches. Each is packed, copied, resized for all branches in one launch, run through its
/// branches' networks side by side, collected in one launch and copied back, while the batch before it is still under
/// way. Where the device has no memory for a batch, smaller ones are tried, and kept to from then on.
/// All functions are const and may be called by several threads at once; embed works on one request at a time. A
/// pipeline does not survive fork(): a child process that uses its parent's pipeline gets an Error. It is in the
/// library btnet::cuda, which is there where btnet was built with nvcc.
class Pipeline {
 public:
  /// Throws InvalidOption, BackendUnavailable.
  Pipeline(Bundle bundle, std::unique_ptr<DeviceExecutor> executor, const PipelineOptions& options = {});
  ~Pipeline();
  Pipeline(Pipeline&&) noexcept;
  Pipeline& operator=(Pipeline&&) noexcept;

  /// out: count x dim() float32 in host memory; row i belongs to images[i]. Throws InvalidImage, which names the index,
  /// before any work; OutOfMemory where not even one image fits; Error for any other failure of the device. The
  /// pipeline stays usable.
  void embed(const SourceImage* images, std::size_t count, float* out, const EmbedOptions& options = {}) const;

  /// out: count resolutions, the branch each image goes to.
  void select(const SourceImage* images, std::size_t count, int* out) const;

  int dim() const;
  const std::vector<int>& resolutions() const;  ///< those it selects from, ascending
  const Bundle& bundle() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace btnet
