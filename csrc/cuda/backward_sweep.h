// Which planes a sweep of the backward pass reads and where its gradients go; see forward_sweep.h.
#pragma once

#include "plan.h"
#include "result.h"

namespace spn {
namespace cuda {

template <typename S>
struct BackwardSweep {
  using T = StateOf<S>;
  Sweep sweep;
  const S *gates[3], *x, *grad, *source;
  const uint8_t* winner;  // null where all of grad is this sweep's
  const T* checkpoints;
  // Gate and source gradients: as the tensors, or in the state's dtype where channels' gradients are summed later.
  void *grad_gates[3], *grad_source;
  T grad_scale;
  uint8_t direction;
  Target<S> target;
};
static_assert(2 * sizeof(BackwardSweep<double>) <= kHeaderBytes, "two sweeps fit the header");

// Sweep d of task `task`; with plan.split, the task's only one.
template <typename S>
SPN_DEVICE BackwardSweep<S> backward_sweep(const BackwardArgs& b, const Plan& plan, int64_t task, int d) {
  using T = StateOf<S>;
  const int64_t index = plan.split ? task / b.directions : task;  // of the plane (n, c)
  const int64_t plane = b.plane(), n = index / b.channels, c = index % b.channels;
  if (plan.split) d = static_cast<int>(task % b.directions);

  BackwardSweep<S> in;
  in.sweep = b.sweep(d);
  in.x = static_cast<const S*>(b.x) + index * plane;
  in.source = b.source ? static_cast<const S*>(b.source) + b.source_plane(n, d, c) * plane : nullptr;
  const int64_t grad_plane = b.merge == Merge::none ? (n * b.directions + d) * b.channels + c : index;
  in.grad = static_cast<const S*>(b.grad) + grad_plane * plane;
  in.winner = b.merge == Merge::max ? b.winner + index * plane : nullptr;
  in.grad_scale = merge_scale<T>(b);
  in.direction = static_cast<uint8_t>(d);
  const int64_t values = b.checkpoint_offset(b.directions);
  in.checkpoints = static_cast<const T*>(b.checkpoints) + index * values + b.checkpoint_offset(d);

  // The gradient of each channel for itself: (N, D, 3, C, H, W), and (N, D, C, H, W).
  T* partial_gates = reinterpret_cast<T*>(plan.workspace + plan.partial_gates);
  T* partial_source = reinterpret_cast<T*>(plan.workspace + plan.partial_source);
  for (int tap = 0; tap < 3; ++tap) {
    const int64_t gate_plane = b.gate_plane(n, d, tap, c);
    in.gates[tap] = static_cast<const S*>(b.gates) + gate_plane * plane;
    in.grad_gates[tap] = static_cast<S*>(b.grad_gates) + gate_plane * plane;
    if (b.gate_groups < b.channels) {
      in.grad_gates[tap] = partial_gates + (((n * b.directions + d) * 3 + tap) * b.channels + c) * plane;
    }
  }
  in.grad_source = nullptr;
  if (b.source) in.grad_source = static_cast<S*>(b.grad_source) + b.source_plane(n, d, c) * plane;
  if (b.source && b.source_groups < b.channels) {
    in.grad_source = partial_source + ((n * b.directions + d) * b.channels + c) * plane;
  }

  S* grad_x = static_cast<S*>(b.grad_x) + index * plane;
  T* planes = reinterpret_cast<T*>(plan.workspace + plan.planes);
  in.target = {nullptr, nullptr, nullptr, nullptr, nullptr, false, static_cast<uint8_t>(d), T(1)};
  if (plan.split) {
    in.target.wide = planes + (d * b.batch * b.channels + index) * plane;
    return in;
  }
  T* running = planes + index * plane;
  if constexpr (std::is_same_v<S, T>) running = grad_x;
  in.target.old = d > 0 ? running : nullptr;
  if (d + 1 < b.directions) {
    in.target.wide = running;
  } else {
    in.target.narrow = grad_x;
  }
  return in;
}

}  // namespace cuda
}  // namespace spn
