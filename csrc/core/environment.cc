#include "core/environment.h"

#include <pwd.h>
#include <unistd.h>

#include <cstdlib>
#include <vector>

#include "btnet/error.h"

namespace btnet {
namespace {

/// As shells have it: also where HOME is not set, as for services.
std::optional<std::filesystem::path> home_folder() {
  if (const auto home = environment("HOME")) return *home;
  constexpr std::size_t kLongestEntry = 1 << 16;
  std::vector<char> text(kLongestEntry);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, text.data(), text.size(), &found) != 0 || found == nullptr) return std::nullopt;
  return found->pw_dir;
}

std::filesystem::path user_folder(const char* own, const char* xdg, const char* below_home) {
  if (const auto folder = environment(own)) return *folder;
  if (const auto base = environment(xdg)) return std::filesystem::path(*base) / "btnet";
  const auto home = home_folder();
  if (!home) {
    throw Error(std::string("there is no folder to use: HOME is not set, and this user has no home; set ") + own);
  }
  return *home / below_home / "btnet";
}

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  return std::string(value);
}

std::filesystem::path model_folder() { return user_folder("BTNET_HOME", "XDG_DATA_HOME", ".local/share"); }

std::filesystem::path cache_folder() { return user_folder("BTNET_CACHE", "XDG_CACHE_HOME", ".cache"); }

}  // namespace btnet
