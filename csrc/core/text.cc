#include "core/text.h"

namespace btnet {

std::string one_line(std::string_view text) {
  constexpr std::size_t kMost = 400;
  std::string line;
  for (const char c : text) {
    if (line.size() == kMost) return line + "...";
    if (c == ' ' || c == '\n' || c == '\r' || c == '\t') {
      if (!line.empty() && line.back() != ' ') line += ' ';
    } else {
      line += c > ' ' && c < '\x7f' ? c : '?';
    }
  }
  if (!line.empty() && line.back() == ' ') line.pop_back();
  return line;
}

}  // namespace btnet
