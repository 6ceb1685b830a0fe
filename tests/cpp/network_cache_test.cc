#include "openvino/network_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "scratch.h"
#include "without_descriptors.h"

namespace btnet {
namespace {

const std::string kNetwork = "what a compiled network would be";

void write_network(std::ostream& out) { out << kNetwork; }

std::string payload(const std::shared_ptr<const MappedFile>& file) {
  return {reinterpret_cast<const char*>(file->data()), NetworkCache::payload(*file)};
}

class NetworkCacheTest : public testing::Test {
 protected:
  std::filesystem::path folder() const { return scratch_.path() / "some" / "folders"; }

  NetworkCache cache() {
    return NetworkCache(folder(), [this](const std::string& message) { log_.push_back(message); });
  }

  std::filesystem::path only_file() const {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder())) files.push_back(entry.path());
    EXPECT_EQ(files.size(), 1u) << "something was left behind";
    return files.at(0);
  }

  void write(const std::filesystem::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }

  const Scratch scratch_;
  std::vector<std::string> log_;
};

TEST_F(NetworkCacheTest, NothingIsMadeBeforeTheFirstStore) {
  EXPECT_EQ(cache().find("key"), nullptr);
  EXPECT_FALSE(std::filesystem::exists(folder()));
  EXPECT_TRUE(log_.empty());
}

TEST_F(NetworkCacheTest, StoreAndFind) {
  EXPECT_TRUE(cache().store("key", write_network));
  const auto found = cache().find("key");
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(payload(found), kNetwork);
  EXPECT_EQ(cache().find("other"), nullptr);
  EXPECT_TRUE(log_.empty());
  only_file();
}

TEST_F(NetworkCacheTest, StoreReplaces) {
  EXPECT_TRUE(cache().store("key", write_network));
  const auto before = cache().find("key");
  EXPECT_TRUE(cache().store("key", [](std::ostream& out) { out << "another"; }));
  EXPECT_EQ(payload(cache().find("key")), "another");
  EXPECT_EQ(payload(before), kNetwork) << "a reader keeps what it found";
}

TEST_F(NetworkCacheTest, AWriterThatGoesBack) {
  EXPECT_TRUE(cache().store("key", [](std::ostream& out) {
    out << "???? then the rest";
    out.seekp(0);
    out << "head";
  }));
  EXPECT_EQ(payload(cache().find("key")), "head then the rest");
}

TEST_F(NetworkCacheTest, CutShortAtEveryByte) {
  ASSERT_TRUE(cache().store("key", write_network));
  const std::filesystem::path path = only_file();
  const std::string whole = read_all(path);
  for (std::size_t size = 0; size < whole.size(); ++size) {
    write(path, whole.substr(0, size));
    log_.clear();
    EXPECT_EQ(cache().find("key"), nullptr) << size;
    EXPECT_EQ(log_.size(), 1u);
  }
  EXPECT_TRUE(cache().store("key", write_network));
  EXPECT_EQ(payload(cache().find("key")), kNetwork) << "a damaged file is replaced";
}

TEST_F(NetworkCacheTest, AShortageLeavesWhatIsThere) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers need files to be opened";
  ASSERT_TRUE(cache().store("key", write_network));
  without_descriptors([&] { EXPECT_EQ(cache().find("key"), nullptr); });
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_EQ(payload(cache().find("key")), kNetwork);
}

// As in containers that share the folder, where all processes have the same number.
TEST_F(NetworkCacheTest, NoTwoPartsHaveOneName) {
  std::set<std::string> parts;
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(cache().store("key", [&](std::ostream&) {
      for (const auto& entry : std::filesystem::directory_iterator(folder())) {
        if (entry.path().extension() == ".tmp") parts.insert(entry.path().filename().string());
      }
    }));
  }
  EXPECT_EQ(parts.size(), 10u);
  for (const std::string& name : parts) EXPECT_GE(name.size(), std::string("key.1.1.tmp").size() + 8) << name;
}

TEST_F(NetworkCacheTest, LongerThanItWasWritten) {
  ASSERT_TRUE(cache().store("key", write_network));
  write(only_file(), read_all(only_file()) + "x");
  EXPECT_EQ(cache().find("key"), nullptr);
  EXPECT_EQ(log_.size(), 1u);
}

// Three of the steps of eight words in which the checksum goes, and a rest.
TEST_F(NetworkCacheTest, EveryByteAndTheOrderOfWordsMatter) {
  std::string network(3 * 64 + 13, '\0');
  std::iota(network.begin(), network.end(), 1);
  ASSERT_TRUE(cache().store("key", [&](std::ostream& out) { out << network; }));
  const std::filesystem::path path = only_file();
  const std::string whole = read_all(path);
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] ^= 1;
    write(path, damaged);
    ASSERT_EQ(cache().find("key"), nullptr) << "byte " << at << " of " << whole.size();
  }
  for (std::size_t at = 8; at + 8 <= network.size(); at += 8) {
    std::string swapped = whole;
    std::swap_ranges(swapped.begin(), swapped.begin() + 8, swapped.begin() + static_cast<std::ptrdiff_t>(at));
    write(path, swapped);
    ASSERT_EQ(cache().find("key"), nullptr) << "the first word swapped with that at " << at;
  }
  write(path, whole);
  EXPECT_NE(cache().find("key"), nullptr);
}

TEST_F(NetworkCacheTest, LogNamesTheFile) {
  ASSERT_TRUE(cache().store("key", write_network));
  const std::filesystem::path path = only_file();
  write(path, "foreign");
  EXPECT_EQ(cache().find("key"), nullptr);
  ASSERT_EQ(log_.size(), 1u);
  expect_in(path.string(), log_[0]);
}

TEST_F(NetworkCacheTest, AFolderInPlaceOfAFile) {
  ASSERT_TRUE(cache().store("key", write_network));
  const std::filesystem::path path = only_file();
  std::filesystem::remove(path);
  std::filesystem::create_directories(path / "full");
  EXPECT_EQ(cache().find("key"), nullptr);
  EXPECT_FALSE(cache().store("key", write_network));
  EXPECT_EQ(log_.size(), 2u);
}

TEST_F(NetworkCacheTest, AFileInPlaceOfTheFolder) {
  std::filesystem::create_directories(folder().parent_path());
  write(folder(), "in the way");
  EXPECT_EQ(cache().find("key"), nullptr);
  EXPECT_FALSE(cache().store("key", write_network));
  ASSERT_EQ(log_.size(), 1u);
  expect_in(folder().string(), log_[0]);
  expect_in("BTNET_CACHE", log_[0]);
}

TEST_F(NetworkCacheTest, SaysOnceThatItCannotBeWritten) {
  std::filesystem::create_directories(folder().parent_path());
  write(folder(), "in the way");
  NetworkCache blocked = cache();
  for (const char* key : {"first", "second"}) EXPECT_FALSE(blocked.store(key, write_network));
  EXPECT_EQ(log_.size(), 1u);
}

TEST_F(NetworkCacheTest, AWriterThatFails) {
  EXPECT_FALSE(cache().store("key", [](std::ostream& out) { out.setstate(std::ios::badbit); }));
  EXPECT_EQ(log_.size(), 1u);
  EXPECT_EQ(cache().find("key"), nullptr);
  EXPECT_TRUE(std::filesystem::is_empty(folder())) << "an unfinished file was left behind";
}

TEST_F(NetworkCacheTest, AWriterThatThrowsLeavesNothingBehind) {
  EXPECT_THROW(cache().store("key", [](std::ostream&) { throw std::runtime_error("export failed"); }),
               std::runtime_error);
  EXPECT_TRUE(std::filesystem::is_empty(folder())) << "an unfinished file was left behind";
}

TEST_F(NetworkCacheTest, WhatKilledProcessesLeftIsRemovedADayLater) {
  std::filesystem::create_directories(folder());
  const auto now = std::filesystem::file_time_type::clock::now();
  for (const char* name : {"old.7.0.tmp", "new.8.0.tmp", "old.blob"}) {
    write(folder() / name, kNetwork);
    const int hours = name[0] == 'o' ? 25 : 23;
    std::filesystem::last_write_time(folder() / name, now - std::chrono::hours(hours));
  }
  EXPECT_TRUE(cache().store("key", write_network));
  EXPECT_FALSE(std::filesystem::exists(folder() / "old.7.0.tmp"));
  EXPECT_TRUE(std::filesystem::exists(folder() / "new.8.0.tmp"));
  EXPECT_TRUE(std::filesystem::exists(folder() / "old.blob"));
}

TEST_F(NetworkCacheTest, ALogIsNotNeeded) {
  std::filesystem::create_directories(folder().parent_path());
  write(folder(), "in the way");
  NetworkCache silent(folder(), {});
  EXPECT_FALSE(silent.store("key", write_network));
  silent.refuse("key", "no reason");
}

TEST_F(NetworkCacheTest, WritersAtOnce) {
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; ++i) {
    writers.emplace_back([this] {
      NetworkCache own(folder(), {});
      for (int round = 0; round < 20; ++round) {
        EXPECT_TRUE(own.store("key", write_network));
        const auto found = own.find("key");
        EXPECT_TRUE(found != nullptr && payload(found) == kNetwork);
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  EXPECT_EQ(payload(cache().find("key")), kNetwork);
  only_file();
}

}  // namespace
}  // namespace btnet
