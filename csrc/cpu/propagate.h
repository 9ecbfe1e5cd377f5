// The interface of the kernels for one instruction set. propagate.cpp selects one of them at run time.
#pragma once

#include "../problem.h"

namespace spn {

// forward_tasks and backward_tasks return the number of tasks of a pass. `separate` is null, or (D, N, C, H, W) in the
// dtype of the hidden state if each sweep has a separate plane (see tasks.h).
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
