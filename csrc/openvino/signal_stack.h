#pragma once

#include <csignal>

namespace btnet {

/// Gives this thread back, at the end of a scope, the alternate signal stack that it had at the beginning.
///
/// OpenVINO's CPU plugin, when it is loaded, gives the calling thread a signal stack that is large enough for AMX. It
/// takes it back where it is unloaded, which may be in another thread: the first one is then left with a stack that is
/// not mapped any more, and dies at its next signal (Python's handlers run on that stack).
class SignalStackScope {
 public:
  SignalStackScope();
  ~SignalStackScope();
  SignalStackScope(const SignalStackScope&) = delete;
  SignalStackScope& operator=(const SignalStackScope&) = delete;

 private:
  stack_t before_ = {};
};

}  // namespace btnet
