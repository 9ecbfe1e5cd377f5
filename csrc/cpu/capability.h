// Compiles the kernels for one instruction set. The including file defines SPN_CPU_CAPABILITY (the namespace) and
// SPN_VECTOR_BYTES. It includes the standard library before it changes the target.
#include "backward.h"
#include "forward.h"
#include "propagate.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

#define SPN_QUOTE(name) #name
#define SPN_STRING(name) SPN_QUOTE(name)

template <typename Visit>
auto with_dtype(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::float32: return visit(float{});
    case DType::float64: return visit(double{});
    case DType::float16: return visit(torch::headeronly::Half{});
    default: return visit(torch::headeronly::BFloat16{});
  }
}

inline int64_t count_forward_tasks(const Problem& problem) {
  return with_dtype(problem.dtype, [&](auto zero) { return forward_tasks<decltype(zero)>(problem).count; });
}

inline int64_t count_backward_tasks(const Problem& problem) {
  return with_dtype(problem.dtype, [&](auto zero) { return backward_tasks<decltype(zero)>(problem).count; });
}

inline void run_forward(const ForwardArgs& f, void* separate) {
  with_dtype(f.dtype, [&](auto zero) { forward<decltype(zero)>(f, separate); });
}

inline void run_backward(const BackwardArgs& b, void* separate) {
  with_dtype(b.dtype, [&](auto zero) { backward<decltype(zero)>(b, separate); });
}

extern const CpuKernels kernels = {SPN_STRING(SPN_CPU_CAPABILITY), count_forward_tasks, count_backward_tasks,
                                   run_forward, run_backward};

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
