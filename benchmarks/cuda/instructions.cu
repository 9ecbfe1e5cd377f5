// The kernels' hot loops with every option fixed, so that the compiled code is exactly what a call executes. It is
// compiled for instructions.py, which counts the instructions, and never run. Four-way "max", "abs", G = C; the second
// or third sweep, so that a running sum is both read and written. Every gradient is requested.
#define SPN_WITHOUT_STARTS
#include "../../csrc/cuda/backward.h"
#include "../../csrc/cuda/forward.h"

namespace spn {
namespace cuda {

// kWide: the running merge has the dtype of the state.
template <bool kWide, bool kHorizontal, typename Sweep>
SPN_DEVICE void fix(const Problem& p, Sweep& in) {
  in.source = nullptr;
  in.target.winner = nullptr;
  if (kWide) {
    in.target.old_narrow = in.target.narrow = nullptr;
  } else {
    in.target.old = in.target.wide = nullptr;
  }
  __builtin_assume(kWide ? in.target.old != nullptr && in.target.wide != nullptr : in.target.old_narrow != nullptr);
  in.sweep.position_stride = kHorizontal ? p.width : 1;
  if (kHorizontal) in.sweep.line_stride = -1;
  __builtin_assume(p.width > 1);
}

SPN_DEVICE void fix(Problem& p, Plan& plan) {
  p.normalize = Normalize::abs;
  p.source_groups = 0;
  p.merge = Merge::max;
  p.gate_groups = p.channels;
  p.restart_every = 0;
  plan.stages = 2;
  plan.channels = 1;
  plan.resident = 0;
  plan.runs = 1;
}

template <typename S, int kPiece, bool kHorizontal>
__global__ void __launch_bounds__(kThreads<S>, 1) count_forward(ForwardArgs f, Plan plan) {
  SPN_SHARED(shared);
  fix(f, plan);
  f.source = nullptr;
  const ForwardMemory<S> memory(f, plan, shared + kHeaderBytes);
  ForwardSweep<S> in = published(reinterpret_cast<ForwardSweep<S>*>(shared));
  fix<sizeof(S) == sizeof(StateOf<S>), kHorizontal>(f, in);
  in.checkpoints = nullptr;
  in.target.maximum = true;
  run_forward<S, kPiece>(f, plan, in, memory);
}

template <typename S, int kPiece, bool kHorizontal, bool kResident>
__global__ void __launch_bounds__(kThreads<S>, 1) count_backward(BackwardArgs b, Plan plan) {
  SPN_SHARED(shared);
  fix(b, plan);
  if (kResident) plan.resident = BackwardMemory<S>::kept_all;
  b.directions = kDirections;
  b.grad_source = nullptr;
  __builtin_assume(b.grad_x != nullptr);
  __builtin_assume(b.grad_gates != nullptr);
  const BackwardMemory<S> memory(b, plan, shared + kHeaderBytes);
  BackwardSweep<S> in = published(reinterpret_cast<BackwardSweep<S>*>(shared));
  fix<true, kHorizontal>(b, in);
  in.direction = kHorizontal ? 1 : 2;
  for (auto& plane : in.grad_gates) plane.wide = nullptr;
  __builtin_assume(in.winner != nullptr && in.x != nullptr);
  in.target.maximum = false;
  run_backward<S, kPiece>(b, plan, in, memory);
}

#define SPN_COUNT(S, piece, horizontal)                                                     \
  template __global__ void count_forward<S, piece, horizontal>(ForwardArgs, Plan);          \
  template __global__ void count_backward<S, piece, horizontal, false>(BackwardArgs, Plan); \
  template __global__ void count_backward<S, piece, horizontal, true>(BackwardArgs, Plan);
#define SPN_COUNT_PIECES(S, horizontal) \
  SPN_COUNT(S, 4, horizontal) SPN_COUNT(S, 2, horizontal) SPN_COUNT(S, 1, horizontal)
SPN_COUNT_PIECES(float, true)
SPN_COUNT_PIECES(float, false)
SPN_COUNT_PIECES(torch::headeronly::BFloat16, true)
SPN_COUNT_PIECES(torch::headeronly::BFloat16, false)

}  // namespace cuda
}  // namespace spn
