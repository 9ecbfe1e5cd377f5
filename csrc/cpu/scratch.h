// Scratch memory of a thread, kept between calls: newly allocated memory would cost one page fault per 4 KB.
#pragma once

#include <cstddef>

namespace spn {

enum class Slot : int {
  gates,
  weights,
  set_gates,
  source,
  input,
  hidden,
  carry,
  entering,
  plane,
  input_sets,
  winner_sets,
  grad,
  grad_x,
  grad_gates,
  grad_gates_lines,
  grad_source,
  grad_source_total,
  grad_source_lines,
  sent,
  count
};

// Return at least `bytes` bytes, aligned to a cache line, from a slot of this thread. The contents are undefined. One
// cache line before and one after them may also be read.
void* scratch_bytes(Slot slot, size_t bytes);

// Free the slots that have grown too large to keep.
void release_large_scratch();

template <typename T>
T* scratch(Slot slot, size_t values) {
  return static_cast<T*>(scratch_bytes(slot, values * sizeof(T)));
}

}  // namespace spn
