#pragma once

#include <filesystem>
#include <optional>
#include <string>

namespace btnet {

/// The one place where BTNET_ variables are read. An empty variable counts as unset.
///
/// BTNET_HOME   a user's bundles                (default: btnet in the user's data folder)
/// BTNET_CACHE  compiled networks and plans     (default: btnet in the user's cache folder)
/// BTNET_SIMD   forces the resampler's code path: plain, avx2 or avx512
std::optional<std::string> environment(const char* name);

/// $BTNET_HOME, else $XDG_DATA_HOME/btnet, else ~/.local/share/btnet. Throws Error where there is none of these.
std::filesystem::path model_folder();

/// $BTNET_CACHE, else $XDG_CACHE_HOME/btnet, else ~/.cache/btnet. Throws Error where there is none of these.
std::filesystem::path cache_folder();

}  // namespace btnet
