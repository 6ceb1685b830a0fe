#include "openvino/signal_stack.h"

namespace btnet {

SignalStackScope::SignalStackScope() { sigaltstack(nullptr, &before_); }

SignalStackScope::~SignalStackScope() {
  if (sigaltstack(&before_, nullptr) == 0) return;
  // Too small since the process may use AMX, so that a signal would end the process: handlers use the normal stack.
  stack_t none = {};
  none.ss_flags = SS_DISABLE;
  sigaltstack(&none, nullptr);
}

}  // namespace btnet
