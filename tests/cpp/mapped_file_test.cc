#include "core/mapped_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <string>

#include "btnet/error.h"
#include "scratch.h"
#include "without_descriptors.h"

namespace btnet {
namespace {

std::string content(const MappedFile& file) { return {reinterpret_cast<const char*>(file.data()), file.size()}; }

std::string failure(const std::filesystem::path& path) {
  return message_of<BundleError>([&] { MappedFile file(path); });
}

TEST(MappedFile, HoldsTheContents) {
  const Scratch folder;
  const std::string bytes = std::string(10000, 'x') + std::string("\0end", 4);
  const MappedFile file(folder.write("data", bytes));
  EXPECT_EQ(content(file), bytes);
  file.release_pages();
  EXPECT_EQ(content(file), bytes);
}

TEST(MappedFile, EmptyFile) {
  const Scratch folder;
  const MappedFile file(folder.write("empty", ""));
  EXPECT_EQ(file.size(), 0u);
  file.release_pages();
}

TEST(MappedFile, Missing) {
  const Scratch folder;
  expect_in("nothing_here", failure(folder.path() / "nothing_here"));
}

TEST(MappedFile, Folder) {
  const Scratch folder;
  expect_in(folder.path().string(), failure(folder.path()));
}

TEST(MappedFile, NamedPipeDoesNotWait) {
  const Scratch folder;
  const std::filesystem::path pipe = folder.path() / "pipe";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  expect_in("not a regular file", failure(pipe));
}

// Whoever takes a BundleError for a damaged bundle must not get one for it.
TEST(MappedFile, AShortageIsNoDamage) {
  if (kSanitized) GTEST_SKIP() << "the sanitizers need files to be opened";
  const Scratch folder;
  const std::filesystem::path path = folder.write("intact", "text");
  without_descriptors([&] {
    try {
      const MappedFile file(path);
      ADD_FAILURE() << "it was opened";
    } catch (const BundleError& error) {
      ADD_FAILURE() << error.what();
    } catch (const Error& error) {
      expect_in(path.string(), error.what());
    }
  });
}

TEST(MappedFile, Device) { expect_in("not a regular file", failure("/dev/zero")); }

TEST(MappedFile, SymbolicLinks) {
  const Scratch folder;
  folder.write("target", "text");
  std::filesystem::create_symlink("target", folder.path() / "link");
  std::filesystem::create_symlink("loop", folder.path() / "loop");
  std::filesystem::create_symlink("nowhere", folder.path() / "dangling");
  for (const char* name : {"link", "loop", "dangling"}) {
    const std::string message = failure(folder.path() / name);
    expect_in("symbolic link", message);
    expect_in(name, message);
  }
}

}  // namespace
}  // namespace btnet
