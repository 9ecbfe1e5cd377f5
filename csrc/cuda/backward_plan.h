// The backward pass's plan: host code; and where its blocks keep what in shared memory.
#pragma once

#include "plan.h"
#include "tile.h"

namespace spn {
namespace cuda {

inline int64_t sharing_gates(const Problem& p) {
  return p.channels / p.gate_groups;
}
inline int64_t sharing_source(const Problem& p) {
  return p.source_groups ? p.channels / p.source_groups : 1;
}

// Which gradients a block adds up over channels, in tiles of their own.
struct Sums {
  bool gates, source;

  template <typename S>
  SPN_HD static Sums of(const Problem& p, int channels) {
    const bool here = channels > 1 || sizeof(S) < sizeof(StateOf<S>);
    return {here && p.gate_groups < p.channels, here && p.source_groups && p.source_groups < p.channels};
  }
  SPN_HD int tiles() const { return (gates ? 3 : 0) + (source ? 1 : 0); }
};

// After the header: each warp's tiles, a tile's lines of the state, lines that are sent on, carried lines.
template <typename S>
struct BackwardMemory {
  using T = StateOf<S>;
  enum Array : int { gates = 0, x = 3, grad = 4, source = 5 };
  static constexpr bool kInPlace = sizeof(S) == sizeof(T);  // grad_x takes the place of the grad that it came from
  static constexpr int kTile = kWarp * kLines;              // values
  static constexpr int kLineCount = kLines + 6;

  SPN_HD static int arrays(const Problem& p) { return p.source_groups ? 6 : 5; }
  SPN_HD static int stage_bytes(const Problem& p) {
    return kTile * (arrays(p) * static_cast<int>(sizeof(S)) + (p.merge == Merge::max ? 1 : 0));
  }
  SPN_HD static int warp_bytes(const Problem& p, const Sums& sums, int stages) {
    return stages * stage_bytes(p) + kTile * (sums.tiles() + (kInPlace ? 0 : 1)) * static_cast<int>(sizeof(T));
  }
  static int64_t thread_bytes(const Problem& p, int channels, int stages) {
    return warp_bytes(p, Sums::of<S>(p, channels), stages) / kWarp + kLineCount * sizeof(T);
  }
  static int64_t fixed_bytes() { return 2 * kLineCount * sizeof(T); }  // a zero before and after each line

  unsigned char* warp;
  T *lines, *carry;
  Sums sums;
  int stage, arrays_bytes, summed, pitch;

  SPN_DEVICE BackwardMemory(const Problem& p, const Plan& plan, unsigned char* scratch)
      : sums(Sums::of<S>(p, plan.channels)),
        stage(stage_bytes(p)),
        arrays_bytes(kTile * arrays(p) * static_cast<int>(sizeof(S))),
        summed(plan.stages * stage),
        pitch(plan.threads + 2) {
    const int bytes = warp_bytes(p, sums, plan.stages);
    warp = scratch + static_cast<int>(threadIdx.x) / kWarp * bytes;
    lines = reinterpret_cast<T*>(scratch + plan.threads / kWarp * bytes) + 1;
    carry = plan.carry_in_shared ? lines - 1 + kLineCount * pitch
                                 : reinterpret_cast<T*>(plan.workspace + plan.carry) + blockIdx.x * plan.carry_values;
  }

  SPN_DEVICE S* tile(int s, int array) const { return reinterpret_cast<S*>(warp + s * stage) + array * kTile; }
  SPN_DEVICE uint8_t* winner(int s) const { return warp + s * stage + arrays_bytes; }
  SPN_DEVICE T* sum_gates() const { return reinterpret_cast<T*>(warp + summed); }
  SPN_DEVICE T* sum_source() const { return sum_gates() + (sums.gates ? 3 * kTile : 0); }
  SPN_DEVICE T* grad_x(int s) const {
    if constexpr (kInPlace) return tile(s, grad);
    return sum_gates() + sums.tiles() * kTile;
  }

  // The checkpoint before a tile, on its way in stage s.
  SPN_DEVICE T* checkpoint(int s) const { return lines + (kLines + 4 + s) * pitch; }
  // What precedes line `l` of a tile: line 0 comes from a checkpoint.
  SPN_DEVICE T* before(int l) const { return lines + l * pitch; }
  // What line t sends to line t - 1 through taps minus and plus; tap zero stays with its thread.
  SPN_DEVICE T* sent_minus(int t) const { return lines + (kLines + (t & 1)) * pitch; }
  SPN_DEVICE T* sent_plus(int t) const { return lines + (kLines + 2 + (t & 1)) * pitch; }
};

template <typename S>
bool place_backward(Plan& plan, const Problem& p, const Limits& limits, int stages) {
  using Memory = BackwardMemory<S>;
  return place(plan, p, limits, kThreads<S>, stages, Memory::thread_bytes(p, plan.channels, stages),
               Memory::fixed_bytes());
}

inline Plan plan_backward(const BackwardArgs& b, const Limits& limits) {
  Plan plan{};
  const int64_t gates = sharing_gates(b), source = sharing_source(b);
  const auto divides = [](int64_t few, int64_t many) { return many % few == 0; };
  // Channels that share gates follow each other in a block, as many as leave a block for each multiprocessor.
  with_width(b.dtype, [&](auto zero) {
    using S = decltype(zero);
    for (int64_t channels = gates; channels >= 1; --channels) {
      if (!divides(channels, gates) || !(divides(channels, source) || divides(source, channels))) continue;
      const int64_t tasks = b.batch * b.channels / channels * b.directions;
      if (channels > 1 && tasks * 8 < limits.multiprocessors * 7) continue;
      divide(plan, b, limits, static_cast<int>(channels));
      if (place_backward<S>(plan, b, limits, 2) || place_backward<S>(plan, b, limits, 1)) return;
    }
    plan.threads = 0;
  });
  plan.piece = piece_of(b, {b.grad, b.x, b.gates, b.source, b.winner, b.grad_x, b.grad_gates, b.grad_source});
  reserve_carry(plan, b, limits);
  const int64_t state = state_bytes(b.dtype), planes = b.batch * b.channels * b.plane() * state;
  if (plan.split) plan.planes = reserve(plan, planes * b.directions);
  if (b.directions > 1 && !plan.split && state > value_bytes(b.dtype)) plan.planes = reserve(plan, planes);
  // What a block knows only a part of: the parts are added up afterwards.
  const int64_t parts = planes / plan.channels * b.directions;
  if (gates > plan.channels) plan.partial_gates = reserve(plan, parts * 3);
  if (source > plan.channels) plan.partial_source = reserve(plan, parts);
  return plan;
}

}  // namespace cuda
}  // namespace spn
