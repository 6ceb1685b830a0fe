#include "core/environment.h"

#include <cstdlib>

namespace btnet {
namespace {

std::filesystem::path user_folder(const char* own, const char* xdg, const char* below_home) {
  if (const auto folder = environment(own)) return *folder;
  if (const auto base = environment(xdg)) return std::filesystem::path(*base) / "btnet";
  return std::filesystem::path(environment("HOME").value_or(".")) / below_home / "btnet";
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
