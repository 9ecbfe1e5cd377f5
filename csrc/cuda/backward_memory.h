// The shared memory layout of the blocks of the backward pass.
#pragma once

#include "resident.h"

namespace spn {
namespace cuda {

// The gradients that a block adds up over channels, in separate tiles.
struct Sums {
  bool gates, source;

  template <typename S>
  SPN_HD static Sums of(const BackwardArgs& b, int channels) {
    const bool here = channels > 1 || sizeof(S) < sizeof(StateOf<S>);
    return {here && b.grad_gates && b.gate_groups < b.channels, here && b.grad_source && b.source_groups < b.channels};
  }
  SPN_HD int tiles() const { return (gates ? 3 : 0) + (source ? 1 : 0); }
};

// Shared memory after the header: the tiles of each warp, a tile's lines of the hidden state, lines that are sent back,
// carried lines, and the resident planes of each channel.
template <typename S>
struct BackwardMemory {
  using T = StateOf<S>;
  // The planes that can stay in shared memory. A plan keeps the first few. They are sorted by the memory traffic that
  // they save per byte of shared memory, best first.
  enum Resident : int { kept_sum, kept_x, kept_winner, kept_grad, kept_all };
  enum Array : int { gates = 0, grad = 3, x = 4 };          // of a tile; source follows the arrays that are present
  static constexpr bool kInPlace = sizeof(S) == sizeof(T);  // grad_x overwrites the grad that it came from
  static constexpr int kTile = kWarp * kLines;              // values
  static constexpr int kLineCount = kLines + 6;

  // Bytes per pixel of the first `count` resident planes. Planes that the requested gradients do not need take none.
  SPN_HD static int resident_bytes(const BackwardArgs& b, int count) {
    const int value = static_cast<int>(sizeof(S)), winner = b.merge == Merge::max ? 1 : 0;
    return (count > kept_sum && b.grad_x ? static_cast<int>(sizeof(T)) : 0) +
           (count > kept_x && b.reads_x() ? value : 0) + (count > kept_winner ? winner : 0) +
           (count > kept_grad ? value : 0);
  }
  SPN_HD static int source_array(const BackwardArgs& b, int resident) {
    return 3 + (resident > kept_grad ? 0 : 1) + (resident > kept_x || !b.reads_x() ? 0 : 1);
  }
  SPN_HD static int arrays(const BackwardArgs& b, int resident) {
    return source_array(b, resident) + (b.source_groups ? 1 : 0);
  }
  SPN_HD static int stage_bytes(const BackwardArgs& b, int resident) {
    const int winner = b.merge == Merge::max && resident <= kept_winner ? 1 : 0;
    return kTile * (arrays(b, resident) * static_cast<int>(sizeof(S)) + winner);
  }
  SPN_HD static int warp_bytes(const BackwardArgs& b, const Sums& sums, int stages, int resident) {
    const int results = kInPlace || resident > kept_sum || !b.grad_x ? 0 : 1;
    return stages * stage_bytes(b, resident) + kTile * (sums.tiles() + results) * static_cast<int>(sizeof(T));
  }
  static int64_t thread_bytes(const BackwardArgs& b, int channels, int stages, int resident) {
    return warp_bytes(b, Sums::of<S>(b, channels), stages, resident) / kWarp + kLineCount * sizeof(T);
  }
  static int64_t fixed_bytes(const BackwardArgs& b, const Plan& plan) {
    const int64_t ends = 2 * kLineCount * sizeof(T);  // one zero before and one after each line
    return ends + plan.channels * resident_values(b, plan) * resident_bytes(b, plan.resident);
  }

  const BackwardArgs& problem;
  const Plan& plan;
  unsigned char *scratch, *warp;
  T* lines;
  Sums sums;
  int stage, pitch;

  SPN_DEVICE BackwardMemory(const BackwardArgs& b, const Plan& plan, unsigned char* scratch)
      : problem(b),
        plan(plan),
        scratch(scratch),
        sums(Sums::of<S>(b, plan.channels)),
        stage(stage_bytes(b, plan.resident)),
        pitch(plan.threads + 2) {
    const int bytes = warp_bytes(b, sums, plan.stages, plan.resident);
    warp = scratch + static_cast<int>(threadIdx.x) / kWarp * bytes;
    lines = reinterpret_cast<T*>(scratch + plan.threads / kWarp * bytes) + 1;
  }

  SPN_DEVICE S* tile(int s, int array) const { return reinterpret_cast<S*>(warp + s * stage) + array * kTile; }
  SPN_DEVICE uint8_t* winner(int s) const {
    return reinterpret_cast<uint8_t*>(tile(s, arrays(problem, plan.resident)));
  }
  SPN_DEVICE S* source(int s) const { return tile(s, source_array(problem, plan.resident)); }
  SPN_DEVICE T* sum_gates() const { return reinterpret_cast<T*>(warp + plan.stages * stage); }
  SPN_DEVICE T* sum_source() const { return sum_gates() + (sums.gates ? 3 * kTile : 0); }
  SPN_DEVICE T* grad_x(int s) const {
    if constexpr (kInPlace) return tile(s, grad);
    return sum_gates() + sums.tiles() * kTile;
  }

  SPN_DEVICE T* carry() const {
    if (plan.carry_in_shared) return lines - 1 + kLineCount * pitch;
    return reinterpret_cast<T*>(plan.workspace + plan.carry) + blockIdx.x * plan.carry_values;
  }

  SPN_DEVICE bool keeps(Resident array) const { return plan.resident > array; }
  // Return a resident plane. The address is recomputed on each use, because no registers are free to keep it.
  template <typename V>
  SPN_DEVICE V* plane(Resident array, int channel) const {
    const int values = static_cast<int>(resident_values(problem, plan));
    const int from_end = (plan.channels - channel) * resident_bytes(problem, plan.resident);
    const int offset = static_cast<int>(plan.scratch_bytes) + (resident_bytes(problem, array) - from_end) * values;
    return reinterpret_cast<V*>(scratch + offset);
  }
  SPN_DEVICE T* sum(int channel) const { return plane<T>(kept_sum, channel); }

  // The checkpoint before a tile, staged in stage s.
  SPN_DEVICE T* checkpoint(int s) const { return lines + (kLines + 4 + s) * pitch; }
  // The line before line `l` of a tile. For line 0 it comes from a checkpoint.
  SPN_DEVICE T* before(int l) const { return lines + l * pitch; }
  // The values that line t sends to line t - 1 through the minus and plus taps. Values of tap zero stay in their
  // thread.
  SPN_DEVICE T* sent_minus(int t) const { return lines + (kLines + (t & 1)) * pitch; }
  SPN_DEVICE T* sent_plus(int t) const { return lines + (kLines + 2 + (t & 1)) * pitch; }
};

}  // namespace cuda
}  // namespace spn
