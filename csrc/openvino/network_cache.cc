#include "openvino/network_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <system_error>
#include <utility>

#include "btnet/error.h"

namespace btnet {
namespace {

// Ends every file, so that one that was cut short is seen as such.
struct Trailer {
  char magic[8] = {'b', 't', 'n', 'e', 't', 'n', 'e', 't'};
  std::uint64_t payload = 0;
};

bool is_whole(const MappedFile& file) {
  if (file.size() < sizeof(Trailer)) return false;
  Trailer expected;
  expected.payload = file.size() - sizeof(Trailer);
  return std::memcmp(file.data() + expected.payload, &expected, sizeof(Trailer)) == 0;
}

// A name is on disk before the data that it stands for, unless the data is asked to be there first.
bool flush_to_disk(const std::filesystem::path& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return false;
  const bool flushed = ::fsync(file) == 0;
  ::close(file);
  return flushed;
}

bool write_whole(const std::filesystem::path& path, const std::function<void(std::ostream&)>& write) {
  std::ofstream out(path, std::ios::binary);
  if (!out) return false;
  write(out);
  out.seekp(0, std::ios::end);  // a writer may have gone back to fill in a header
  Trailer trailer;
  trailer.payload = static_cast<std::uint64_t>(out.tellp());
  out.write(reinterpret_cast<const char*>(&trailer), sizeof(trailer));
  out.close();
  return out.good() && flush_to_disk(path);
}

}  // namespace

NetworkCache::NetworkCache(std::filesystem::path folder, Log log)
    : folder_(std::move(folder)), log_(log ? std::move(log) : [](const std::string&) {}) {}

std::filesystem::path NetworkCache::path(const std::string& key) const { return folder_ / (key + ".blob"); }

std::shared_ptr<const MappedFile> NetworkCache::find(const std::string& key) const {
  std::error_code ignored;
  if (!std::filesystem::exists(path(key), ignored)) return nullptr;
  try {
    auto file = std::make_shared<const MappedFile>(path(key));
    if (is_whole(*file)) return file;
    discard(key, "the file is cut short or foreign");
  } catch (const Error& error) {
    discard(key, error.what());
  }
  return nullptr;
}

std::size_t NetworkCache::payload(const MappedFile& file) { return file.size() - sizeof(Trailer); }

bool NetworkCache::store(const std::string& key, const std::function<void(std::ostream&)>& write) const {
  static std::atomic<int> counter{0};
  const std::string unique = "." + std::to_string(::getpid()) + "." + std::to_string(counter++) + ".tmp";
  const std::filesystem::path unfinished = folder_ / (key + unique);
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  errno = 0;
  if (!error && !write_whole(unfinished, write)) error.assign(errno != 0 ? errno : EIO, std::generic_category());
  if (!error) std::filesystem::rename(unfinished, path(key), error);
  if (!error) return true;
  std::error_code ignored;
  std::filesystem::remove(unfinished, ignored);
  log_("cannot keep compiled networks in " + folder_.string() + " (" + error.message() +
       "): engines will load slower and take more memory; set BTNET_CACHE to a folder that can be written");
  return false;
}

void NetworkCache::discard(const std::string& key, const std::string& why) const {
  log_("compiling again, since the compiled network " + path(key).string() + " is of no use: " + why);
  std::error_code ignored;
  std::filesystem::remove(path(key), ignored);
}

}  // namespace btnet
