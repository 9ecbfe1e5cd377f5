// The forward pass's plan: host code; and where its blocks keep what in shared memory.
#pragma once

#include "plan.h"
#include "tile.h"

namespace spn {
namespace cuda {

// After the header: each warp's tiles, two lines of the running state, carried lines, the resident planes: x and the
// running merge, or none.
template <typename S>
struct ForwardMemory {
  using T = StateOf<S>;
  enum Array : int { gates = 0, x = 3, source = 4 };
  static constexpr bool kInPlace = sizeof(S) == sizeof(T);  // results take the place of the x that they came from
  static constexpr int kTile = kWarp * kLines;              // values

  SPN_HD static int arrays(const Problem& p) { return p.source_groups ? 5 : 4; }
  SPN_HD static int warp_bytes(const Problem& p, int stages) {
    return kTile * (stages * arrays(p) * static_cast<int>(sizeof(S)) + (kInPlace ? 0 : static_cast<int>(sizeof(T))));
  }
  SPN_HD static int pitch(int threads) { return threads + 2; }  // a zero before and after a line
  SPN_HD static int64_t plane_values(const Problem& p) { return (p.plane() + 7) / 8 * 8; }

  static int64_t thread_bytes(const Problem& p, int stages) { return warp_bytes(p, stages) / kWarp + 2 * sizeof(T); }
  static int64_t fixed_bytes(const Problem& p, const Plan& plan) {
    const int64_t merged = plan.merges_narrow ? sizeof(S) : sizeof(T);
    return 4 * sizeof(T) + (plan.resident ? plane_values(p) * (merged + static_cast<int64_t>(sizeof(S))) : 0);
  }

  unsigned char* warp;
  T *lines, *carry;
  S* resident_x;
  unsigned char* resident_merge;  // in the state's dtype, or with plan.merges_narrow in the tensors'
  int stage_bytes, stages, line_pitch;

  SPN_DEVICE ForwardMemory(const Problem& p, const Plan& plan, unsigned char* scratch)
      : stage_bytes(kTile * arrays(p) * static_cast<int>(sizeof(S))),
        stages(plan.stages),
        line_pitch(pitch(plan.threads)) {
    const int bytes = warp_bytes(p, stages);
    warp = scratch + static_cast<int>(threadIdx.x) / kWarp * bytes;
    lines = reinterpret_cast<T*>(scratch + plan.threads / kWarp * bytes) + 1;
    carry = plan.carry_in_shared ? lines - 1 + 2 * line_pitch
                                 : reinterpret_cast<T*>(plan.workspace + plan.carry) + blockIdx.x * plan.carry_values;
    resident_x = reinterpret_cast<S*>(scratch + plan.scratch_bytes) - plane_values(p);
    resident_merge = reinterpret_cast<unsigned char*>(
        resident_x - plane_values(p) * (plan.merges_narrow ? 1 : static_cast<int>(sizeof(T) / sizeof(S))));
  }

  SPN_DEVICE S* tile(int stage, int array) const {
    return reinterpret_cast<S*>(warp + stage * stage_bytes) + array * kTile;
  }
  SPN_DEVICE T* results(int stage) const {
    if constexpr (kInPlace) return tile(stage, x);
    return reinterpret_cast<T*>(warp + stages * stage_bytes);
  }
  SPN_DEVICE T* line(int t) const { return lines + (t & 1) * line_pitch; }
};

template <typename S>
bool place_forward(Plan& plan, const Problem& p, const Limits& limits, int stages, int resident) {
  using Memory = ForwardMemory<S>;
  plan.resident = resident;
  const bool placed =
      place(plan, p, limits, kThreads<S>, stages, Memory::thread_bytes(p, stages), Memory::fixed_bytes(p, plan));
  return placed && !(resident && plan.carry_values);  // a plane on chip is walked whole lines at a time
}

inline Plan plan_forward(const ForwardArgs& f, const Limits& limits) {
  Plan plan{};
  divide(plan, f, limits, 1);
  plan.piece = piece_of(f, {f.x, f.gates, f.source, f.out, f.winner});
  const bool merges = f.directions > 1 && f.merge != Merge::none;
  const bool wider = state_bytes(f.dtype) > value_bytes(f.dtype);
  // The maximum of rounded values is the rounded maximum; only which direction won could differ.
  plan.merges_narrow = merges && !plan.split && wider && f.merge == Merge::max && !f.winner;
  with_width(f.dtype, [&](auto zero) {
    using S = decltype(zero);
    const bool may_reside = merges && !plan.split;
    for (const int resident : {2, 0}) {
      for (const int stages : {2, 1}) {
        if ((may_reside || !resident) && place_forward<S>(plan, f, limits, stages, resident)) return;
      }
    }
    plan.threads = 0;
  });
  reserve_carry(plan, f, limits);
  const int64_t planes = f.batch * f.channels * f.plane() * state_bytes(f.dtype);
  if (merges && plan.split) plan.planes = reserve(plan, planes * f.directions);
  if (merges && !plan.split && !plan.resident && wider && !plan.merges_narrow) plan.planes = reserve(plan, planes);
  return plan;
}

}  // namespace cuda
}  // namespace spn
