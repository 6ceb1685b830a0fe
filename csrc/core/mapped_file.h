#pragma once

#include <cstddef>
#include <filesystem>

namespace btnet {

/// A regular file mapped read-only into memory; its pages belong to the page cache, not to this process.
///
/// Throws BundleError where the file is missing, is a symbolic link or no regular file, or cannot be read.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const unsigned char* data() const { return data_; }
  std::size_t size() const { return size_; }

  /// Tells the system that the contents will not be needed soon: they leave this process's resident memory, and are
  /// read again where they are touched after all.
  void release_pages() const;

 private:
  const unsigned char* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace btnet
