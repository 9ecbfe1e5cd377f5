// A fiber: a separate stack that the scheduler enters and that returns to the scheduler.
#pragma once

#include <ucontext.h>

#include <cstddef>
#include <memory>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SPN_FIBER_SANITIZER 1
#endif

namespace spn {
namespace emulator {

class Fiber {
 public:
  // Prepares the fiber to call `main` at the next resume.
  void start(void (*main)()) {
    if (!stack_) stack_.reset(new char[kStack]);
    getcontext(&context_);
    context_.uc_stack.ss_sp = stack_.get();
    context_.uc_stack.ss_size = kStack;
    context_.uc_link = nullptr;
    makecontext(&context_, main, 0);
  }

  // Called by the scheduler: runs the fiber until it yields.
  void resume() {
#ifdef SPN_FIBER_SANITIZER
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, stack_.get(), kStack);
#endif
    swapcontext(&scheduler(), &context_);
#ifdef SPN_FIBER_SANITIZER
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  // Must be called at the start of `main`.
  static void entered() {
#ifdef SPN_FIBER_SANITIZER
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack().data, &scheduler_stack().bytes);
#endif
  }

  // Called by the fiber: returns to the scheduler, permanently if `done`.
  void yield(bool done) {
#ifdef SPN_FIBER_SANITIZER
    __sanitizer_start_switch_fiber(done ? nullptr : &fake_stack_, scheduler_stack().data, scheduler_stack().bytes);
#else
    (void)done;
#endif
    swapcontext(&context_, &scheduler());
#ifdef SPN_FIBER_SANITIZER
    __sanitizer_finish_switch_fiber(fake_stack_, &scheduler_stack().data, &scheduler_stack().bytes);
#endif
  }

 private:
  static constexpr size_t kStack = 256 << 10;

  static ucontext_t& scheduler() {
    static ucontext_t context;
    return context;
  }

  ucontext_t context_;
  std::unique_ptr<char[]> stack_;

#ifdef SPN_FIBER_SANITIZER
  struct Stack {
    const void* data = nullptr;
    size_t bytes = 0;
  };
  static Stack& scheduler_stack() {
    static Stack stack;
    return stack;
  }
  void* fake_stack_ = nullptr;
#endif
};

}  // namespace emulator
}  // namespace spn
