#pragma once

#include <sys/wait.h>
#include <unistd.h>

namespace btnet {

/// Runs `action` in a forked child; whether that ended well, and within 20 seconds.
template <typename Action>
bool child_succeeds(const Action& action) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    bool fine = false;
    try {
      fine = action();
    } catch (...) {
    }
    ::_exit(fine ? 0 : 1);
  }
  int status = 0;
  return ::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace btnet
