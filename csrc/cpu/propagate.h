// What each instruction set's copy of the kernels offers, and what the dispatcher in propagate.cpp chooses from.
#pragma once

#include "../problem.h"

namespace spn {

// A pass is cut into so many tasks. `separate` is null, or (D, N, C, H, W) in the state's dtype where each sweep gets a
// plane of its own (see tasks.h).
struct CpuKernels {
  const char* capability;
  int64_t (*forward_tasks)(const Problem&);
  int64_t (*backward_tasks)(const Problem&);
  void (*forward)(const ForwardArgs&, void* separate);
  void (*backward)(const BackwardArgs&, void* separate);
};

namespace baseline {
extern const CpuKernels kernels;
}
#ifdef SPN_X86
namespace avx2 {
extern const CpuKernels kernels;
}
namespace avx512 {
extern const CpuKernels kernels;
}
#endif

}  // namespace spn
