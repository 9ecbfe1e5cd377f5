// The planes that a sweep of the forward pass reads, and the planes that its results are written to.
//
// One thread per block computes them and stores them in shared memory. These dozen pointers are needed once per tile;
// kept in registers, they would take registers from every thread.
#pragma once

#include "forward_plan.h"
#include "restarts.h"
#include "result.h"

namespace spn {
namespace cuda {

template <typename S>
struct ForwardSweep {
  using T = StateOf<S>;
  Sweep sweep;
  const S* gates[3];
  const S* x;
  const S* source;
  T* checkpoints;
  int first_line, end_line;  // of the run of this task
  Target<S> target;
};
static_assert(2 * sizeof(ForwardSweep<double>) <= kHeaderBytes, "two sweeps fit the header");

// Fill in sweep d of task `task`. With plan.split, a task has a single sweep.
template <typename S>
SPN_DEVICE void fill_sweep(ForwardSweep<S>& in, const ForwardArgs& f, const Plan& plan, const ForwardMemory<S>& memory,
                           int64_t task, int d) {
  using T = StateOf<S>;
  const int number = static_cast<int>(task % plan.runs);
  task /= plan.runs;
  const int64_t index = plan.split ? task / f.directions : task;  // index of the plane (n, c)
  const int64_t plane = f.plane(), n = index / f.channels, c = index % f.channels;
  if (plan.split) d = static_cast<int>(task % f.directions);

  in.sweep = f.sweep(d);
  const Run run = f.run(d, plan.runs, number);
  in.first_line = static_cast<int>(run.first);
  in.end_line = static_cast<int>(run.end);
  for (int tap = 0; tap < 3; ++tap) in.gates[tap] = static_cast<const S*>(f.gates) + f.gate_plane(n, d, tap, c) * plane;
  in.x = static_cast<const S*>(f.x) + index * plane;
  in.source = f.source ? static_cast<const S*>(f.source) + f.source_plane(n, d, c) * plane : nullptr;
  in.checkpoints = nullptr;
  if (f.checkpoints) {
    const int64_t values = f.checkpoint_offset(f.directions);
    in.checkpoints = static_cast<T*>(f.checkpoints) + index * values + f.checkpoint_offset(d);
  }

  S* out = static_cast<S*>(f.out);
  T* planes = reinterpret_cast<T*>(plan.workspace + plan.planes);
  const bool merges = f.directions > 1 && f.merge != Merge::none;
  in.target = {nullptr, nullptr, nullptr, nullptr, nullptr, false, static_cast<uint8_t>(d), T(1)};
  if (!merges) {
    in.target.narrow = out + ((n * f.directions + d) * f.channels + c) * plane;
  } else if (plan.split) {
    in.target.wide = planes + (d * f.batch * f.channels + index) * plane;
  } else {
    S* const narrow = out + index * plane;
    const bool last = d + 1 == f.directions;
    if (plan.merges_narrow) {
      S* const running = plan.resident ? reinterpret_cast<S*>(memory.resident_merge) : narrow;
      in.target.old_narrow = d > 0 ? running : nullptr;
      in.target.narrow = last ? narrow : running;
    } else {
      T* running = planes + index * plane;
      if (plan.resident) {
        running = reinterpret_cast<T*>(memory.resident_merge);
      } else if constexpr (sizeof(S) == sizeof(T)) {
        running = reinterpret_cast<T*>(narrow);
      }
      in.target.old = d > 0 ? running : nullptr;
      in.target.narrow = last ? narrow : nullptr;
      in.target.wide = last ? nullptr : running;
    }
    in.target.maximum = f.merge == Merge::max;
    in.target.scale = merge_scale<T>(f);
    in.target.winner = f.winner ? f.winner + index * plane : nullptr;
  }
}

}  // namespace cuda
}  // namespace spn
