// Scratch memory of a thread, kept between calls: allocating it anew would cost a page fault every 4 KB.
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

// At least `bytes` bytes, aligned to a cache line, of this thread's slot; the contents are undefined. A cache line
// before them and one after them may be read, too.
void* scratch_bytes(Slot slot, size_t bytes);

// Gives slots back that have grown beyond what is worth keeping.
void release_large_scratch();

template <typename T>
T* scratch(Slot slot, size_t values) {
  return static_cast<T*>(scratch_bytes(slot, values * sizeof(T)));
}

}  // namespace spn
