// The planes that a sweep of the backward pass reads, and the planes that its gradients are written to; see
// forward_sweep.h.
#pragma once

#include "backward_plan.h"
#include "parts.h"
#include "restarts.h"
#include "result.h"

namespace spn {
namespace cuda {

// Pointers for the first channel of the task. Those of the other channels follow plane by plane.
template <typename S>
struct BackwardSweep {
  using T = StateOf<S>;
  Sweep sweep;
  Sweep part;  // the same sweep over a part of a sum
  const S *gates[3], *grad, *source;
  const S* x;             // null if no gradient needs it
  const uint8_t* winner;  // null if all of grad belongs to this sweep
  const T* checkpoints;
  GradientPlane<S> grad_gates[3], grad_source;
  T grad_scale;
  uint8_t direction;
  bool carries;              // whether lines are carried from tile to tile in memory
  int first_line, end_line;  // of the run of this task or the chunk of this launch
  bool sweep_ends;           // whether the sweep ends or restarts at end_line, so that it receives nothing there
  Target<S> target;
};
static_assert(2 * sizeof(BackwardSweep<double>) <= kHeaderBytes, "two sweeps fit the header");

// Fill in sweep d of task `task`. With plan.split, a task has a single sweep.
template <typename S>
SPN_DEVICE void fill_sweep(BackwardSweep<S>& in, const BackwardArgs& b, const Plan& plan, int64_t task, int d) {
  using T = StateOf<S>;
  const int number = static_cast<int>(task % plan.runs);
  task /= plan.runs;
  const int64_t part = plan.split ? task / b.directions : task;
  const int64_t index = part * plan.channels;  // index of the first plane (n, c)
  const int64_t plane = b.plane(), n = index / b.channels, c = index % b.channels;
  if (plan.split) d = static_cast<int>(task % b.directions);

  in.sweep = b.sweep(d);
  in.x = b.reads_x() ? static_cast<const S*>(b.x) + index * plane : nullptr;
  in.source = b.source ? static_cast<const S*>(b.source) + b.source_plane(n, d, c) * plane : nullptr;
  const int64_t grad_plane = b.merge == Merge::none ? (n * b.directions + d) * b.channels + c : index;
  in.grad = static_cast<const S*>(b.grad) + grad_plane * plane;
  in.winner = b.merge == Merge::max ? b.winner + index * plane : nullptr;
  in.grad_scale = merge_scale<T>(b);
  in.direction = static_cast<uint8_t>(d);
  const bool alone = plan.channels == 1 && plan.chunks == 1 && in.sweep.positions <= plan.threads;
  in.carries = in.sweep.lines > kLines && !alone;
  const Chunk chunk(in.sweep.lines, plan);
  const Run run = b.run(d, plan.runs, number);
  in.first_line = static_cast<int>(plan.runs > 1 ? run.first : chunk.first);
  in.end_line = static_cast<int>(plan.runs > 1 ? run.end : chunk.end);
  in.sweep_ends = plan.runs > 1 || chunk.end == in.sweep.lines;
  const int64_t values = b.checkpoint_offset(b.directions);
  in.checkpoints = static_cast<const T*>(b.checkpoints) + index * values + b.checkpoint_offset(d);

  // Partial sums over the channels of each block: (N, D, 3, C / channels) and (N, D, C / channels).
  const int64_t parts = b.channels / plan.channels, c_part = c / plan.channels;
  const int64_t part_plane = part_values(b, plan.chunks);
  T* partial_gates = reinterpret_cast<T*>(plan.workspace + plan.partial_gates);
  T* partial_source = reinterpret_cast<T*>(plan.workspace + plan.partial_source);
  const bool gate_parts = b.channels / b.gate_groups > plan.channels;
  const bool source_parts = b.source && b.channels / b.source_groups > plan.channels;
  in.part = part_sweep(b, plan, d);
  for (int tap = 0; tap < 3; ++tap) {
    const int64_t gate_plane = b.gate_plane(n, d, tap, c);
    in.gates[tap] = static_cast<const S*>(b.gates) + gate_plane * plane;
    in.grad_gates[tap] = {nullptr, nullptr};
    if (!b.grad_gates) continue;
    in.grad_gates[tap].narrow = static_cast<S*>(b.grad_gates) + gate_plane * plane;
    if (gate_parts) {
      in.grad_gates[tap].wide = partial_gates + (((n * b.directions + d) * 3 + tap) * parts + c_part) * part_plane;
    }
  }
  in.grad_source = {nullptr, nullptr};
  if (b.grad_source) {
    in.grad_source.narrow = static_cast<S*>(b.grad_source) + b.source_plane(n, d, c) * plane;
    if (source_parts) {
      in.grad_source.wide = partial_source + ((n * b.directions + d) * parts + c_part) * part_plane;
    }
  }

  in.target = {nullptr, nullptr, nullptr, nullptr, nullptr, false, static_cast<uint8_t>(d), T(1)};
  if (!b.grad_x) return;
  S* grad_x = static_cast<S*>(b.grad_x) + index * plane;
  T* planes = reinterpret_cast<T*>(plan.workspace + plan.planes);
  if (plan.split) {
    in.target.wide = planes + (d * b.batch * b.channels + index) * plane;
    return;
  }
  if (plan.resident) {  // only the last sweep writes the sum to global memory
    in.target.narrow = grad_x;
    return;
  }
  T* running = planes + index * plane;
  if constexpr (sizeof(S) == sizeof(T)) running = reinterpret_cast<T*>(grad_x);
  in.target.old = d > 0 ? running : nullptr;
  if (d + 1 < b.directions) {
    in.target.wide = running;
  } else {
    in.target.narrow = grad_x;
  }
}

}  // namespace cuda
}  // namespace spn
