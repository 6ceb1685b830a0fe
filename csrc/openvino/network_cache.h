#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <ostream>
#include <string>

#include "core/mapped_file.h"

namespace btnet {

using Log = std::function<void(const std::string&)>;

/// Compiled networks on disk, one file a key. Files are written under another name and then renamed, so that readers in
/// other processes see all of a network or none of it.
class NetworkCache {
 public:
  /// Nothing is made on disk yet. `log` is told what goes wrong: without its cache an engine works, with more memory.
  NetworkCache(std::filesystem::path folder, Log log);

  /// The network stored under `key`, mapped; null where there is none, or none of use, which is logged.
  std::shared_ptr<const MappedFile> find(const std::string& key) const;

  /// Bytes of the network in a file that find() returned.
  static std::size_t payload(const MappedFile& file);

  /// Stores what `write` writes. Returns whether it could; once it could not, it says so to the log and tries no more.
  bool store(const std::string& key, const std::function<void(std::ostream&)>& write);

  /// Logs why a network is of no use. It stays until store() replaces it: the reason may pass.
  void refuse(const std::string& key, const std::string& why) const;

 private:
  std::filesystem::path path(const std::string& key) const;

  std::filesystem::path folder_;
  Log log_;
  bool writable_ = true;  // as far as known
};

}  // namespace btnet
