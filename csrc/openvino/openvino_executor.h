#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "btnet/bundle.h"
#include "btnet/executor.h"

namespace btnet {

struct OpenVinoOptions {
  std::string precision;                        ///< "f32", "bf16" or "int8"
  std::string hint;                             ///< "throughput" or "latency"
  int threads;                                  ///< 0: all available cores
  std::function<void(const std::string&)> log;  ///< told of trouble that changes no result
};

/// The CPU's executor. Throughput: as many slots as threads, each network on one of them. Latency: one slot, each
/// network on all threads. Throws InvalidOption, BackendUnavailable, and BundleError for graphs that are not what the
/// bundle says.
std::unique_ptr<Executor> make_openvino_executor(const Bundle& bundle, const std::vector<int>& resolutions,
                                                 const OpenVinoOptions& options);

}  // namespace btnet
