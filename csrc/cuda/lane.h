#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/device_executor.h"
#include "cuda/device.h"
#include "cuda/dispatch.h"
#include "cuda/request.h"
#include "cuda/resize_plan.h"

namespace btnet::cuda {

/// Everything that one batch needs while it is in flight: streams, memory of both sides, recorded graphs. Two lanes
/// take turns, so that copies of one batch overlap with the networks of the other.
///
/// One main stream copies, resizes for all branches and collects their embeddings; each branch's network runs in a
/// stream of its own in between.
class Lane {
 public:
  using Log = std::function<void(const std::string&)>;

  /// slot: of the executor. log: may be empty. Bundle, executor and log must outlive the lane.
  Lane(const Bundle& bundle, DeviceExecutor& executor, int slot, const Log& log);

  /// Puts all work of a batch, one of `limits`, on its way.
  void start(const Request& request, const Batch& batch, const BatchLimits& limits);

  bool busy() const { return busy_; }

  /// Waits for the batch, and writes its embeddings to their rows of `out`, which has dim() floats for each image of
  /// the request. Returns where the batch ends.
  std::size_t finish(float* out);

  /// Waits until nothing of the lane runs any more, whatever went wrong in it, and gives its memory back.
  void reset() noexcept;

 private:
  struct Branch {
    Stream stream;
    Event finished;
    DeviceMemory input, output;
    int rows = 0;                 // of the batch
    std::set<int> warm;           // sizes that have run once: TensorRT settles on shapes then
    std::map<int, Graph> graphs;  // by size
    bool recordable = true;
  };

  /// Of a batch, for the device.
  struct Tables {
    ResizePlan plan;
    std::vector<ScatterRow> scatter;
  };

  std::vector<int> place_rows(const Request& request, const BatchLimits& limits);
  Tables make_tables(const Request& request, const std::vector<int>& row_of, const std::byte* staged);
  const ScatterRow* copy_in(const Request& request, const std::vector<int>& row_of);
  void run_networks(const BatchLimits& limits);
  void run_network(int resolution, Branch& branch, int size);
  template <class Enqueue>
  bool record(int resolution, Branch& branch, int size, const Enqueue& enqueue);
  void copy_out(const ScatterRow* scatter, bool normalize);

  const Bundle& bundle_;
  DeviceExecutor& executor_;
  const int slot_;
  const Log& log_;
  Stream main_;
  Event resized_, done_;
  std::map<int, Branch> branches_;
  PinnedMemory staging_, collected_;
  DeviceMemory staged_, workspace_, rows_;
  Batch batch_{};
  bool busy_ = false;
};

}  // namespace btnet::cuda
