#pragma once

#include <cstddef>

namespace emulator {

/// A function on a stack of its own, which can stop in the middle and go on later. x86-64, System V ABI; one thread.
class Fiber {
 public:
  using Entry = void (*)();

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  /// Makes the next resume() call `entry`, which must end with finish(). What ran before is dropped where it stopped.
  void restart(Entry entry);

  /// Runs until the fiber pauses or finishes. Not to be called from a fiber.
  void resume();

  /// Both from inside a fiber: back to who called resume().
  static void pause();
  [[noreturn]] static void finish();

 private:
  static void start();

  char* stack_;
  void* stack_pointer_ = nullptr;
  Entry entry_ = nullptr;
};

}  // namespace emulator
