#include "openvino/openvino_executor.h"

#include <algorithm>
#include <map>
#include <openvino/frontend/manager.hpp>
#include <openvino/openvino.hpp>
#include <utility>

#include "btnet/error.h"
#include "core/cores.h"
#include "core/environment.h"
#include "core/sha256.h"
#include "core/text.h"
#include "openvino/network_cache.h"
#include "openvino/signal_stack.h"

namespace btnet {
namespace {

constexpr const char* kDevice = "CPU";

/// The CPU, as OpenVINO's plugin for it has it.
struct Cpu {
  std::string name;
  std::vector<std::string> capabilities;
};

Cpu describe_cpu(ov::Core& core) {
  try {
    return {core.get_property(kDevice, ov::device::full_name), core.get_property(kDevice, ov::device::capabilities)};
  } catch (const ov::Exception& error) {
    throw BackendUnavailable(std::string("device 'cpu' is not available: OpenVINO's part for CPUs cannot be used: ") +
                             one_line(error.what()));
  }
}

void check_precision(const Cpu& cpu, const Bundle& bundle, const std::string& precision) {
  if (precision == "f32") return;
  if (precision == "int8") {
    if (bundle.graphs.count(precision) > 0) return;
    throw BackendUnavailable("precision 'int8' is not available: the bundle has no int8 graphs; use 'f32'");
  }
  if (precision != "bf16") {
    throw InvalidOption("precision must be 'f32', 'bf16' or 'int8' on the CPU, not '" + precision + "'");
  }
  const std::vector<std::string>& all = cpu.capabilities;
  if (std::find(all.begin(), all.end(), ov::device::capability::BF16) == all.end()) {
    throw BackendUnavailable("precision 'bf16' is not available: this CPU has no bf16 instructions; use 'f32'");
  }
}

int check_threads(int threads) {
  constexpr int kMostThreads = 1024;
  if (threads < 0 || threads > kMostThreads) {
    throw InvalidOption("threads must be from 1 to " + std::to_string(kMostThreads) + ", or 0 for all, not " +
                        std::to_string(threads));
  }
  return threads > 0 ? threads : available_cores();
}

bool is_latency(const std::string& hint) {
  if (hint != "throughput" && hint != "latency") {
    throw InvalidOption("hint must be 'throughput' or 'latency', not '" + hint + "'");
  }
  return hint == "latency";
}

// Which graphs a precision runs: bf16 is f32 with another arithmetic.
std::string graph_precision(const std::string& precision) { return precision == "bf16" ? "f32" : precision; }

// Straight through the ONNX front end: OpenVINO's general reader tries those of all other formats, too.
std::shared_ptr<ov::Model> convert_graph(const std::string& path) {
  constexpr bool kMapWeights = true;
  ov::frontend::FrontEndManager manager;
  const auto reader = manager.load_by_framework("onnx");
  return reader->convert(reader->load(path, kMapWeights));
}

std::shared_ptr<ov::Model> read_graph(const Bundle& bundle, const std::string& precision, int resolution) {
  const std::string path = bundle.graph(graph_precision(precision), resolution).string();
  const std::shared_ptr<ov::Model> model = convert_graph(path);
  const std::string side = std::to_string(resolution);
  const ov::PartialShape input{-1, 3, resolution, resolution};
  const ov::PartialShape output{-1, bundle.dim};
  if (model->inputs().size() != 1 || model->input().get_partial_shape() != input ||
      model->input().get_element_type() != ov::element::f32) {
    throw BundleError(path + " must have one float32 input of shape (N, 3, " + side + ", " + side + ")");
  }
  if (model->outputs().size() != 1 || model->output().get_partial_shape() != output ||
      model->output().get_element_type() != ov::element::f32) {
    throw BundleError(path + " must have one float32 output of shape (N, " + std::to_string(bundle.dim) + ")");
  }
  return model;
}

/// One resolution's network, compiled, with an inference request for each slot.
struct Network {
  std::shared_ptr<const MappedFile> file;  // where its constants live, if it came from the cache
  ov::CompiledModel compiled;
  std::vector<ov::InferRequest> requests;
};

class OpenVinoExecutor final : public Executor {
 public:
  OpenVinoExecutor(const Bundle& bundle, const std::vector<int>& resolutions, const OpenVinoOptions& options)
      : bundle_(bundle), precision_(options.precision), cache_(cache_folder() / "openvino", options.log) {
    const SignalStackScope signal_stack;  // before anything that loads the plugin
    const bool latency = is_latency(options.hint);
    const int threads = check_threads(options.threads);
    cpu_ = describe_cpu(core_);
    check_precision(cpu_, bundle_, precision_);
    slots_ = latency ? 1 : threads;
    properties_ = {ov::num_streams(slots_), ov::inference_num_threads(threads), ov::hint::enable_cpu_pinning(false),
                   ov::hint::inference_precision(precision_ == "bf16" ? ov::element::bf16 : ov::element::f32)};
    for (const int resolution : resolutions) networks_[resolution] = load(resolution);
  }

  int slots() const override { return slots_; }

  // Small chunks spread evenly over the slots and need little memory; the smaller the maps, the more images it takes to
  // make reading the weights worth while.
  int max_batch(int resolution) const override { return resolution > 14 ? 4 : 16; }

  int dim() const override { return bundle_.dim; }

  void run(int resolution, int count, const float* input, float* output, int slot) override {
    ov::InferRequest& request = networks_.at(resolution).requests.at(slot);
    const std::size_t n = count;
    const std::size_t side = resolution;
    try {
      // OpenVINO has no tensor of constant values; it only reads its inputs.
      request.set_input_tensor(ov::Tensor(ov::element::f32, {n, 3, side, side}, const_cast<float*>(input)));
      request.set_output_tensor(ov::Tensor(ov::element::f32, {n, static_cast<std::size_t>(dim())}, output));
      request.infer();
      const ov::Shape shape = request.get_output_tensor().get_shape();
      if (shape != ov::Shape{n, static_cast<std::size_t>(dim())}) {
        throw Error("the branch for resolution " + std::to_string(resolution) + " gave " +
                    std::to_string(shape.empty() ? 0 : shape[0]) + " rows for " + std::to_string(n) + " images");
      }
    } catch (const ov::Exception& error) {
      throw Error("OpenVINO failed to run the branch for resolution " + std::to_string(resolution) + ": " +
                  one_line(error.what()));
    }
  }

 private:
  // A network that was just compiled holds all its folded weights in memory of its own, beside the packed ones that it
  // computes with. One read back from the cache has the former in a mapped file, which the system can drop.
  Network load(int resolution) {
    try {
      return load_or_throw(resolution);
    } catch (const ov::Exception& error) {
      throw BundleError("OpenVINO cannot run " + bundle_.graph(graph_precision(precision_), resolution).string() +
                        ": " + one_line(error.what()));
    }
  }

  Network load_or_throw(int resolution) {
    const std::string key = cache_key(resolution);
    Network network = from_cache(key);
    if (!network.compiled) {
      verify_once();  // the key stands for what model.json says, so nothing else must get into the cache
      const auto graph = read_graph(bundle_, precision_, resolution);
      network.compiled = core_.compile_model(graph, kDevice, properties_);
      if (cache_.store(key, [&](std::ostream& out) { network.compiled.export_model(out); })) {
        Network again = from_cache(key);
        if (again.compiled) network = std::move(again);
      }
    }
    for (int slot = 0; slot < slots_; ++slot) network.requests.push_back(network.compiled.create_infer_request());
    warm_up(network, resolution);
    return network;
  }

  // The first run packs the weights into the layout that the CPU computes with; after it, those in the file are idle.
  void warm_up(Network& network, int resolution) {
    const std::size_t side = resolution;
    ov::Tensor input(ov::element::f32, {2, 3, side, side});
    std::fill_n(input.data<float>(), input.get_size(), 0.0f);
    ov::InferRequest& request = network.requests.front();
    request.set_input_tensor(input);
    request.infer();
    if (request.get_output_tensor().get_shape() != ov::Shape{2, static_cast<std::size_t>(dim())}) {
      throw BundleError(bundle_.graph(graph_precision(precision_), resolution).string() +
                        " must give one row of its output for each image");
    }
    if (network.file) network.file->release_pages();
  }

  void verify_once() {
    if (!verified_) bundle_.verify();
    verified_ = true;
  }

  Network from_cache(const std::string& key) {
    Network network;
    network.file = cache_.find(key);
    if (!network.file) return {};
    try {
      const ov::Tensor blob(ov::element::u8, {NetworkCache::payload(*network.file)},
                            const_cast<unsigned char*>(network.file->data()));
      network.compiled = core_.import_model(blob, kDevice, properties_);
    } catch (const ov::Exception& error) {
      cache_.refuse(key, one_line(error.what()));
      return {};
    }
    return network;
  }

  // Everything that makes a compiled network another one: the model, its branch and precision, OpenVINO, the CPU.
  std::string cache_key(int resolution) const {
    std::string text = bundle_.digest + "\n" + precision_ + "\n" + std::to_string(resolution) + "\n" +
                       ov::get_openvino_version().buildNumber + "\n" + cpu_.name;
    for (const std::string& capability : cpu_.capabilities) text += "\n" + capability;
    return sha256(text.data(), text.size());
  }

  const Bundle bundle_;
  const std::string precision_;
  NetworkCache cache_;
  bool verified_ = false;
  ov::Core core_;
  Cpu cpu_;
  int slots_ = 1;
  ov::AnyMap properties_;
  std::map<int, Network> networks_;
};

}  // namespace

std::unique_ptr<Executor> make_openvino_executor(const Bundle& bundle, const std::vector<int>& resolutions,
                                                 const OpenVinoOptions& options) {
  return std::make_unique<OpenVinoExecutor>(bundle, resolutions, options);
}

}  // namespace btnet
