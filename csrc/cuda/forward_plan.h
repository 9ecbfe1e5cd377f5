// The plan of the forward pass (host code), and the shared memory layout of its blocks.
#pragma once

#include "cost.h"
#include "tile.h"

namespace spn {
namespace cuda {

// Shared memory after the header: the tiles of each warp, two lines of the hidden state, carried lines, and the
// resident planes (x and the running merge, or none).
template <typename S>
struct ForwardMemory {
  using T = StateOf<S>;
  enum Array : int { gates = 0, x = 3, source = 4 };
  static constexpr bool kInPlace = sizeof(S) == sizeof(T);  // results overwrite the x that they came from
  static constexpr int kTile = kWarp * kLines;              // values

  SPN_HD static int arrays(const Problem& p) { return p.source_groups ? 5 : 4; }
  SPN_HD static int warp_bytes(const Problem& p, int stages) {
    return kTile * (stages * arrays(p) * static_cast<int>(sizeof(S)) + (kInPlace ? 0 : static_cast<int>(sizeof(T))));
  }
  SPN_HD static int pitch(int threads) { return threads + 2; }  // one zero before and one after each line
  SPN_HD static int64_t plane_values(const Problem& p) { return (p.plane() + 7) / 8 * 8; }

  static int64_t thread_bytes(const Problem& p, int stages) { return warp_bytes(p, stages) / kWarp + 2 * sizeof(T); }
  static int64_t fixed_bytes(const Problem& p, const Plan& plan) {
    const int64_t merged = plan.merges_narrow ? sizeof(S) : sizeof(T);
    return 4 * sizeof(T) + (plan.resident ? plane_values(p) * (merged + static_cast<int64_t>(sizeof(S))) : 0);
  }

  unsigned char* warp;
  T *lines, *carry;
  S* resident_x;
  unsigned char* resident_merge;  // in the dtype of the hidden state; with plan.merges_narrow, of the tensors
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

// Gates and sources are counted for each channel that reads them, even if a cache serves some of the reads.
inline Moved forward_moves(const ForwardArgs& f, const Plan& plan) {
  const int64_t value = value_bytes(f.dtype), state = state_bytes(f.dtype);
  const int64_t planes = f.batch * f.channels * f.plane(), sweeps = f.directions;
  const bool merges = sweeps > 1 && f.merge != Merge::none;
  const int64_t out = value * planes * (merges ? 1 : sweeps), winner = f.winner ? planes : 0;
  const int64_t saved = f.checkpoints ? f.batch * f.channels * f.checkpoint_offset(f.directions) * state : 0;
  Moved moved{};
  moved.bytes =
      (f.source_groups ? 4 : 3) * sweeps * value * planes + value * planes * (plan.resident ? 1 : sweeps) + saved;
  if (merges && plan.split) {
    moved.bytes += sweeps * state * planes;
    moved.after = sweeps * state * planes + out + winner;
    moved.launches_after = 1;
    return moved;
  }
  moved.bytes += out;
  if (!merges) return moved;
  if (!plan.resident) moved.bytes += 2 * (sweeps - 1) * planes * (plan.merges_narrow ? value : state);
  moved.bytes += 5 * winner;  // the second sweep writes winner, the third and fourth read and write it
  return moved;
}

// Return a plan with `stages` stages within `limits`, or an empty plan if it does not fit.
template <typename S>
Plan place_forward(const ForwardArgs& f, const Limits& limits, bool split, int runs, int resident, int stages) {
  using Memory = ForwardMemory<S>;
  Plan plan{};
  plan.chunks = 1;
  plan.resident = resident;
  plan.piece = piece_of(f, {f.x, f.gates, f.source, f.out, f.winner});
  divide(plan, f, limits, 1, split, runs);
  const bool merges = f.directions > 1 && f.merge != Merge::none;
  const bool wider = state_bytes(f.dtype) > value_bytes(f.dtype);
  // The maximum of rounded values equals the rounded maximum. Only the selected direction could differ.
  plan.merges_narrow = merges && !split && wider && f.merge == Merge::max && !f.winner;
  const bool placed = place(plan, f, limits, stages, Memory::thread_bytes(f, stages), Memory::fixed_bytes(f, plan));
  // Resident planes are walked in whole lines.
  if (!placed || (resident && plan.threads < std::max(f.height, f.width))) return {};
  reserve_carry(plan, f, limits);
  const int64_t planes = f.batch * f.channels * f.plane() * state_bytes(f.dtype);
  if (merges && split) plan.planes = reserve(plan, planes * f.directions);
  if (merges && !split && !resident && wider && !plan.merges_narrow) plan.planes = reserve(plan, planes);
  return plan;
}

inline Choice choose_forward(const ForwardArgs& f, const Limits& limits) {
  Choice best;
  with_width(f.dtype, [&](auto zero) {
    using S = decltype(zero);
    for_plans<S>(f, limits, 1, 2, [&](const Limits& share, bool split, int runs, int kept, int stages) {
      if (kept == 1) return;  // keep both x and the running merge, or neither
      const Plan plan = place_forward<S>(f, share, split, runs, kept, stages);
      if (plan.threads) best.offer(plan, cost_of(f, plan, limits, Pass::forward, forward_moves(f, plan)));
    });
  });
  return best;
}

inline Plan plan_forward(const ForwardArgs& f, const Limits& limits) {
  return choose_forward(f, limits).plan;
}

}  // namespace cuda
}  // namespace spn
