#pragma once

#include <string>
#include <string_view>

namespace btnet {

/// A text from elsewhere as part of a message of ours: one line of printable ASCII, cut off where it is very long.
std::string one_line(std::string_view text);

}  // namespace btnet
