#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "btnet/image.h"
#include "btnet/resample.h"
#include "btnet/selection.h"

namespace btnet {

/// What model.json says of one file of the bundle.
struct BundleFile {
  std::uint64_t bytes;
  std::string sha256;  ///< 64 lower-case hexadecimal digits
};

/// A trained BTNet on disk, format 1: model.json, one ONNX graph for each resolution, and the weights they share.
///
/// open() reads and checks everything but the contents of the weights: every file is there, is a plain file of the size
/// that model.json gives, and lies in the bundle; graphs take their external data from files of the bundle only, within
/// their bounds. What does not hold is a BundleError that names the file.
struct Bundle {
  std::filesystem::path path;
  std::string name, arch, license;
  double width = 1.0;
  int dim = 0;
  int canonical = 0;
  std::vector<int> resolutions;  ///< ascending, `canonical` among them
  ColorOrder color = ColorOrder::rgb;
  Normalization normalization{};
  Filter filter = Filter::bicubic;
  Indicator indicator = Indicator::max;
  Rounding rounding = Rounding::ceil;
  std::map<std::string, std::map<int, std::string>> graphs;  ///< precision -> resolution -> file name
  std::map<std::string, BundleFile> files;                   ///< every file but model.json
  std::string digest;                                        ///< SHA-256 of model.json, which holds those of all files
  std::string metadata;                                      ///< model.json as it stands, for what is not above

  static Bundle open(const std::filesystem::path& path);

  /// The graph of a resolution in "f32" (or another precision that the bundle has). Throws BundleError if there is
  /// none.
  std::filesystem::path graph(const std::string& precision, int resolution) const;

  /// Reads every file and compares its SHA-256 with model.json. Throws BundleError that names the first that differs.
  void verify() const;
};

}  // namespace btnet
