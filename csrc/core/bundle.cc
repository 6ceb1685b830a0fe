#include "btnet/bundle.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "btnet/error.h"
#include "core/mapped_file.h"
#include "core/onnx_file.h"
#include "core/sha256.h"
#include "core/text.h"

namespace btnet {
namespace {

using Json = nlohmann::json;

constexpr int kFormat = 1;
constexpr int kLargestSide = 4096;
constexpr int kLargestDim = 1 << 16;
constexpr int kDeepestJson = 32;
constexpr const char* kModelFile = "model.json";

/// Reads the fields of model.json; every complaint names the file and the field.
class ModelReader {
 public:
  ModelReader(std::string name, const Json& root) : name_(std::move(name)), root_(root) {
    if (!root_.is_object()) fail("it must hold one JSON object");
  }

  [[noreturn]] void fail(const std::string& why) const { throw BundleError(name_ + " is not valid: " + one_line(why)); }

  const Json& member(const Json& object, const std::string& key) const {
    if (!object.is_object()) fail("the parent of '" + key + "' must be an object");
    const auto found = object.find(key);
    if (found == object.end()) fail("'" + key + "' is missing");
    return *found;
  }

  const Json& object(const std::string& key) const {
    const Json& value = member(root_, key);
    if (!value.is_object()) fail("'" + key + "' must be an object");
    return value;
  }

  std::string text(const Json& object, const std::string& key) const {
    const Json& value = member(object, key);
    if (!value.is_string()) fail("'" + key + "' must be text, not " + shown(value));
    return value.get<std::string>();
  }

  int integer(const Json& value, const std::string& key, int lowest, int highest) const {
    const bool fits = value.is_number_integer() && value >= lowest && value <= highest;
    if (!fits) {
      fail("'" + key + "' must be an integer from " + std::to_string(lowest) + " to " + std::to_string(highest) +
           ", not " + shown(value));
    }
    return value.get<int>();
  }

  std::array<float, 3> channels(const Json& object, const std::string& key) const {
    const Json& value = member(object, key);
    const auto finite = [](const Json& one) { return one.is_number() && std::isfinite(one.get<float>()); };
    if (!value.is_array() || value.size() != 3 || !std::all_of(value.begin(), value.end(), finite)) {
      fail("'" + key + "' must be a list of three finite numbers, not " + shown(value));
    }
    std::array<float, 3> read;
    for (int i = 0; i < 3; ++i) read[i] = value[i].get<float>();
    return read;
  }

  static std::string shown(const Json& value) {
    constexpr std::size_t kMost = 60;
    const std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    return text.size() <= kMost ? text : text.substr(0, kMost) + "...";
  }

  const Json& root() const { return root_; }

 private:
  std::string name_;
  const Json& root_;
};

// An option's parser says what was wrong with its value; here that value came from the bundle.
template <typename Parse>
auto parse(const ModelReader& model, Parse parser, const std::string& value) {
  try {
    return parser(value);
  } catch (const InvalidOption& error) {
    model.fail(error.what());
  }
}

// JSON is read, shown and destroyed by functions that call themselves for each level: what is too deep must not be
// parsed.
bool is_too_deep(const std::string& json) {
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      if (++depth > kDeepestJson) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

void read_description(const ModelReader& model, Bundle& bundle) {
  const Json& root = model.root();
  bundle.name = model.text(root, "name");
  bundle.arch = model.text(root, "arch");
  bundle.license = model.text(root, "license");
  bundle.dim = model.integer(model.member(root, "dim"), "dim", 1, kLargestDim);
  bundle.canonical = model.integer(model.member(root, "canonical"), "canonical", 1, kLargestSide);
  const Json& width = model.member(root, "width");
  if (!width.is_number() || !(width > 0)) model.fail("'width' must be a positive number, not " + model.shown(width));
  bundle.width = width.get<double>();

  const Json& input = model.object("input");
  bundle.color = parse(model, parse_color_order, model.text(input, "color"));
  bundle.normalization = {model.channels(input, "mean"), model.channels(input, "std")};
  for (const float std : bundle.normalization.std) {
    if (!(std > 0)) model.fail("'std' must be positive, not " + model.shown(model.member(input, "std")));
  }
  bundle.filter = parse(model, parse_filter, model.text(input, "filter"));
  const Json& selection = model.object("selection");
  bundle.indicator = parse(model, parse_indicator, model.text(selection, "indicator"));
  bundle.rounding = parse(model, parse_rounding, model.text(selection, "rounding"));
}

void read_resolutions(const ModelReader& model, Bundle& bundle) {
  const Json& resolutions = model.member(model.root(), "resolutions");
  if (!resolutions.is_array() || resolutions.empty()) model.fail("'resolutions' must be a list of integers, not empty");
  for (const Json& value : resolutions) {
    const int resolution = model.integer(value, "resolutions", 1, kLargestSide);
    if (!bundle.resolutions.empty() && resolution <= bundle.resolutions.back()) {
      model.fail("'resolutions' must be in ascending order, each once");
    }
    bundle.resolutions.push_back(resolution);
  }
  if (!std::binary_search(bundle.resolutions.begin(), bundle.resolutions.end(), bundle.canonical)) {
    model.fail("'resolutions' lacks the canonical one, " + std::to_string(bundle.canonical));
  }
}

// OpenVINO drops what stands before a colon, and dots and slashes at the beginning, of the location of external data:
// with such names, what is checked would not be what is read.
bool is_plain_name(const std::string& name) {
  return !name.empty() && name.front() != '.' && name.find_first_of(std::string("/\\:\0", 4)) == std::string::npos;
}

void read_files(const ModelReader& model, Bundle& bundle) {
  for (const auto& [name, entry] : model.object("files").items()) {
    if (!is_plain_name(name) || name == kModelFile) {
      model.fail("'files' names " + ModelReader::shown(name) +
                 ", but it must name files that lie in the bundle itself");
    }
    const Json& bytes = model.member(entry, "bytes");
    if (!bytes.is_number_unsigned()) {
      model.fail("'bytes' of " + name + " must be a count of bytes, not " + model.shown(bytes));
    }
    const std::string digest = model.text(entry, "sha256");
    if (digest.size() != 64 || digest.find_first_not_of("0123456789abcdef") != std::string::npos) {
      model.fail("'sha256' of " + name + " must be 64 lower-case hexadecimal digits");
    }
    bundle.files[name] = {bytes.get<std::uint64_t>(), digest};
  }
}

void read_graphs(const ModelReader& model, Bundle& bundle) {
  for (const auto& [precision, graphs] : model.object("graphs").items()) {
    auto& names = bundle.graphs[precision];
    for (const int resolution : bundle.resolutions) {
      const std::string name = model.text(graphs, std::to_string(resolution));
      if (bundle.files.count(name) == 0) {
        model.fail("'graphs' names " + ModelReader::shown(name) + ", which 'files' does not list");
      }
      names[resolution] = name;
    }
    if (graphs.size() != names.size()) model.fail("'graphs' has a resolution that 'resolutions' does not list");
  }
  if (bundle.graphs.count("f32") == 0) model.fail("'graphs' lacks the precision 'f32'");
}

// By lstat, so that a link is seen as a link; without opening, since weights may be large and a file may be a pipe.
void check_on_disk(const std::filesystem::path& path, const BundleFile& expected) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) throw BundleError(path.string() + " is missing, but model.json lists it");
  if (!S_ISREG(status.st_mode)) {
    throw BundleError(path.string() + " must be a regular file of the bundle, not a link, a folder or a device");
  }
  if (static_cast<std::uint64_t>(status.st_size) != expected.bytes) {
    throw BundleError(path.string() + " has " + std::to_string(status.st_size) + " bytes, but model.json says " +
                      std::to_string(expected.bytes));
  }
}

void check_external_data(const Bundle& bundle, const std::string& graph) {
  const std::string path = (bundle.path / graph).string();
  const MappedFile file(path);
  for (const ExternalTensor& tensor : external_tensors(file.data(), file.size(), path)) {
    const auto found = bundle.files.find(tensor.location);
    if (found == bundle.files.end()) {
      throw BundleError(path + " takes data from " + ModelReader::shown(tensor.location) +
                        ", which is not a file that model.json lists");
    }
    const std::uint64_t size = found->second.bytes;
    if (tensor.offset > size || tensor.length.value_or(0) > size - tensor.offset) {
      throw BundleError(path + " takes data from beyond the end of " + tensor.location);
    }
  }
}

}  // namespace

Bundle Bundle::open(const std::filesystem::path& path) {
  std::error_code ignored;  // whatever keeps us from seeing a folder, there is none to open
  if (!std::filesystem::is_directory(path, ignored)) {
    throw BundleError("there is no bundle at " + path.string() + ": a bundle is a folder with a " + kModelFile);
  }
  Bundle bundle;
  bundle.path = path;
  const std::filesystem::path model_path = path / kModelFile;
  const MappedFile file(model_path);
  bundle.metadata.assign(reinterpret_cast<const char*>(file.data()), file.size());
  bundle.digest = sha256(bundle.metadata.data(), bundle.metadata.size());

  if (is_too_deep(bundle.metadata)) throw BundleError(model_path.string() + " is not valid: it is nested too deeply");
  const bool has_byte_order_mark = bundle.metadata.compare(0, 3, "\xEF\xBB\xBF") == 0;  // which readers may skip or not
  const Json root = Json::parse(bundle.metadata, nullptr, /*allow_exceptions=*/false);
  if (root.is_discarded() || has_byte_order_mark) throw BundleError(model_path.string() + " is not valid JSON");
  const ModelReader model(model_path.string(), root);
  const Json& format = model.member(root, "format");
  if (format != kFormat) {
    model.fail("its format is " + ModelReader::shown(format) + ", and this version of btnet reads format 1");
  }
  read_description(model, bundle);
  read_resolutions(model, bundle);
  read_files(model, bundle);
  read_graphs(model, bundle);

  for (const auto& [name, expected] : bundle.files) check_on_disk(path / name, expected);
  for (const auto& [precision, graphs] : bundle.graphs) {
    for (const auto& [resolution, name] : graphs) check_external_data(bundle, name);
  }
  return bundle;
}

std::filesystem::path Bundle::graph(const std::string& precision, int resolution) const {
  const auto graphs_found = graphs.find(precision);
  if (graphs_found == graphs.end()) {
    throw BundleError("the bundle " + one_line(name) + " has no graphs in precision '" + precision + "'");
  }
  const auto found = graphs_found->second.find(resolution);
  if (found == graphs_found->second.end()) {
    throw BundleError("the bundle " + one_line(name) + " has no branch for resolution " + std::to_string(resolution));
  }
  return path / found->second;
}

void Bundle::verify() const {
  for (const auto& [name, expected] : files) {
    const MappedFile file(path / name);
    const std::string actual = sha256(file.data(), file.size());
    if (actual != expected.sha256) {
      throw BundleError((path / name).string() + " has been changed or damaged: its SHA-256 is " + actual +
                        ", but model.json says " + expected.sha256);
    }
  }
}

}  // namespace btnet
