#include "openvino/network_cache.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <random>
#include <system_error>
#include <utility>

#include "btnet/error.h"

namespace btnet {
namespace {

// Ends every file, so that one that was cut short or damaged is seen as such.
struct Trailer {
  char magic[8];
  std::uint64_t payload;
  std::uint64_t checksum;
};

std::uint64_t load_word(const unsigned char* bytes, std::size_t count) {
  std::uint64_t word = 0;
  std::memcpy(&word, bytes, count);
  return word;
}

// Against accidents, not against attackers, at the speed of memory: eight chains that do not wait for each other. Every
// step is invertible, so that a change of any one word changes the result.
std::uint64_t checksum(const unsigned char* bytes, std::size_t size) {
  constexpr std::uint64_t kOdd = 0x9e3779b97f4a7c15;
  constexpr int kChains = 8;
  constexpr std::size_t kStep = kChains * sizeof(std::uint64_t);
  std::uint64_t chains[kChains] = {size, 1, 2, 3, 4, 5, 6, 7};
  std::size_t at = 0;
  for (; at + kStep <= size; at += kStep) {
    for (int i = 0; i < kChains; ++i) chains[i] = (chains[i] ^ load_word(bytes + at + 8 * i, 8)) * kOdd;
  }
  std::uint64_t sum = 0;
  for (; at < size; at += 8) sum = (sum ^ load_word(bytes + at, std::min<std::size_t>(8, size - at))) * kOdd;
  for (const std::uint64_t chain : chains) sum = (sum ^ chain ^ chain >> 32) * kOdd;
  return sum;
}

Trailer make_trailer(const unsigned char* payload, std::size_t size) {
  return {{'b', 't', 'n', 'e', 't', 'n', 'e', 't'}, size, checksum(payload, size)};
}

bool is_whole(const MappedFile& file) {
  if (file.size() < sizeof(Trailer)) return false;
  const std::size_t payload = file.size() - sizeof(Trailer);
  const Trailer expected = make_trailer(file.data(), payload);
  return std::memcmp(file.data() + payload, &expected, sizeof(Trailer)) == 0;
}

constexpr const char* kUnfinished = ".tmp";

// What processes left that were killed while they wrote; a day later nobody is writing it any more.
void remove_old_parts(const std::filesystem::path& folder) {
  const auto yesterday = std::filesystem::file_time_type::clock::now() - std::chrono::hours(24);
  std::error_code ignored;
  const std::filesystem::directory_iterator end;
  for (auto entry = std::filesystem::directory_iterator(folder, ignored); entry != end; entry.increment(ignored)) {
    if (entry->path().extension() != kUnfinished) continue;
    const auto written = entry->last_write_time(ignored);
    if (!ignored && written < yesterday) std::filesystem::remove(entry->path(), ignored);
  }
}

// Numbers of processes would not do: containers that share a folder have the same ones.
std::string random_name() {
  std::random_device random;
  return std::to_string(random()) + "." + std::to_string(random());
}

// A file that is removed again unless it was renamed.
class UnfinishedFile {
 public:
  explicit UnfinishedFile(std::filesystem::path path) : path_(std::move(path)) {}
  ~UnfinishedFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
  }
  UnfinishedFile(const UnfinishedFile&) = delete;
  UnfinishedFile& operator=(const UnfinishedFile&) = delete;

  bool write(const std::function<void(std::ostream&)>& write_payload) {
    std::ofstream out(path_, std::ios::binary);
    if (!out) return false;
    write_payload(out);
    out.close();
    if (!out) return false;
    if (!append_trailer()) return false;
    return flush_to_disk();
  }

  void rename(const std::filesystem::path& to, std::error_code& error) { std::filesystem::rename(path_, to, error); }

 private:
  bool append_trailer() const {
    Trailer trailer;
    try {
      const MappedFile payload(path_);
      trailer = make_trailer(payload.data(), payload.size());
    } catch (const Error&) {
      return false;  // somebody cleared the folder meanwhile
    }
    std::ofstream end(path_, std::ios::binary | std::ios::app);
    end.write(reinterpret_cast<const char*>(&trailer), sizeof(trailer));
    end.close();
    return end.good();
  }

  // A name is on disk before the data that it stands for, unless the data is asked to be there first.
  bool flush_to_disk() const {
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    const bool flushed = ::fsync(file) == 0;
    ::close(file);
    return flushed;
  }

  const std::filesystem::path path_;
};

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
    refuse(key, "the file is cut short, damaged or foreign");
  } catch (const Error& error) {
    refuse(key, error.what());
  }
  return nullptr;
}

std::size_t NetworkCache::payload(const MappedFile& file) { return file.size() - sizeof(Trailer); }

bool NetworkCache::store(const std::string& key, const std::function<void(std::ostream&)>& write) {
  if (!writable_) return false;
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  remove_old_parts(folder_);
  UnfinishedFile file(folder_ / (key + "." + random_name() + kUnfinished));
  errno = 0;
  if (!error && !file.write(write)) error.assign(errno != 0 ? errno : EIO, std::generic_category());
  if (!error) file.rename(path(key), error);
  if (!error) return true;
  writable_ = false;
  log_("cannot keep compiled networks in " + folder_.string() + " (" + error.message() +
       "): engines will load slower and take more memory; set BTNET_CACHE to a folder that can be written");
  return false;
}

void NetworkCache::refuse(const std::string& key, const std::string& why) const {
  log_("compiling again, since the compiled network " + path(key).string() + " is of no use: " + why);
}

}  // namespace btnet
