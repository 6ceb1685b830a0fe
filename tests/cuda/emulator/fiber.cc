#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstdlib>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves the registers that a call preserves on the stack, the stack pointer in *save, and goes on where `next` was
// saved.
extern "C" void emulator_switch(void** save, void* next);
__asm__(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_switch, .-emulator_switch
)");

namespace emulator {
namespace {

constexpr std::size_t kStackBytes = std::size_t{256} << 10;  // AddressSanitizer makes frames large
constexpr int kSavedRegisters = 6;

Fiber* running = nullptr;
void* scheduler_stack_pointer = nullptr;

/// AddressSanitizer has to know which stack is in use.
#if defined(__SANITIZE_ADDRESS__)
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;

void leave_stack(void** fake, const void* stack, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake, stack, bytes);
}
void enter_stack(void* fake) { __sanitizer_finish_switch_fiber(fake, nullptr, nullptr); }
void enter_fiber() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes); }
void leave_fiber(void** fake) { leave_stack(fake, scheduler_stack, scheduler_stack_bytes); }
void forget_frames(void* stack) { __asan_unpoison_memory_region(stack, kStackBytes); }
#else
void leave_stack(void**, const void*, std::size_t) {}
void enter_stack(void*) {}
void enter_fiber() {}
void leave_fiber(void**) {}
void forget_frames(void*) {}
#endif

}  // namespace

Fiber::Fiber() {
  void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED) throw std::bad_alloc();
  stack_ = static_cast<char*>(stack);
}

Fiber::~Fiber() { munmap(stack_, kStackBytes); }

void Fiber::restart(Entry entry) {
  forget_frames(stack_);
  entry_ = entry;
  // As if start() had been called, from nowhere, and had then called emulator_switch.
  auto** top = reinterpret_cast<void**>(stack_ + kStackBytes);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(&start);
  stack_pointer_ = top - kSavedRegisters;
}

void Fiber::start() {
  enter_fiber();
  running->entry_();
  std::abort();
}

void Fiber::resume() {
  running = this;
  void* fake = nullptr;
  leave_stack(&fake, stack_, kStackBytes);
  emulator_switch(&scheduler_stack_pointer, stack_pointer_);
  enter_stack(fake);
}

void Fiber::pause() {
  void* fake = nullptr;
  leave_fiber(&fake);
  emulator_switch(&running->stack_pointer_, scheduler_stack_pointer);
  enter_stack(fake);
}

void Fiber::finish() {
  leave_fiber(nullptr);
  emulator_switch(&running->stack_pointer_, scheduler_stack_pointer);
  std::abort();
}

}  // namespace emulator
