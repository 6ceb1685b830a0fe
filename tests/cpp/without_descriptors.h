#pragma once

#include <sys/resource.h>

namespace btnet {

/// Whether the sanitizers are there, which open files themselves, to look at what they check.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

/// Runs `action` while this process can open no file.
template <typename Action>
void without_descriptors(const Action& action) {
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  const rlimit none{0, before.rlim_max};
  ::setrlimit(RLIMIT_NOFILE, &none);
  action();
  ::setrlimit(RLIMIT_NOFILE, &before);
}

}  // namespace btnet
