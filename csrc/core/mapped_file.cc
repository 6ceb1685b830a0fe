#include "core/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "btnet/error.h"

namespace btnet {
namespace {

struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) ::close(value);
  }
};

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& why) {
  throw BundleError("cannot read " + path.string() + ": " + why);
}

[[noreturn]] void fail(const std::filesystem::path& path, int error) {
  const bool shortage = error == ENOMEM || error == EAGAIN || error == EMFILE || error == ENFILE;
  if (shortage) throw Error("cannot read " + path.string() + ": " + std::strerror(error));
  fail(path, std::strerror(error));
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  // O_NONBLOCK: a named pipe in place of the file must not make us wait for a writer.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)};
  if (file.value < 0 && errno == ELOOP) fail(path, "it is a symbolic link, which is not followed");
  if (file.value < 0) fail(path, errno);
  struct stat status{};
  if (::fstat(file.value, &status) != 0) fail(path, errno);
  if (!S_ISREG(status.st_mode)) fail(path, "it is not a regular file");
  size_ = static_cast<std::size_t>(status.st_size);
  if (size_ == 0) return;
  void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.value, 0);
  if (mapped == MAP_FAILED) fail(path, errno);
  data_ = static_cast<const unsigned char*>(mapped);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<unsigned char*>(data_), size_);
}

void MappedFile::release_pages() const {
  // Advice only: where it is refused, nothing but memory is lost.
  if (data_ != nullptr) ::madvise(const_cast<unsigned char*>(data_), size_, MADV_DONTNEED);
}

}  // namespace btnet
