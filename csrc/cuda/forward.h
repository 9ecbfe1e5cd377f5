// The forward kernel.
//
//   block   one plane (n, c), all its sweeps one after the other; or one sweep of it (plan.split)
//   warp w  positions 32 w .. 32 w + 31 of a line, then those 32 x warps further on
//   lane    one position: it follows the sweep from line to line
//
//                 positions  0        31 32       63 64       95
//   line t - 1    state[0]  [  warp 0   |  warp 1   |  warp 2   ]    running state in shared memory
//                              | \ | / |                             three taps, across warps too
//   line t        state[1]  [  warp 0   |  warp 1   |  warp 2   ]    one barrier, then the two change places
//
// Each warp stages L lines of its positions' gates, x and source in tiles of its own (tile.h), so only the state needs
// the block's barrier. A result replaces the x that it came from; a finished tile goes out in pieces of memory's rows.
#pragma once

#include "forward_sweep.h"
#include "plan.h"
#include "tile.h"

namespace spn {
namespace cuda {

// What a step reads of tiles, with the gates made weights.
template <typename T>
struct StepValues {
  Taps<T> p;
  T x, lambda;
};

template <typename S, bool kFits>
SPN_DEVICE void run_forward(const ForwardArgs& f, const Plan& plan, const ForwardSweep<S>& in, unsigned char* scratch) {
  using T = StateOf<S>;
  using Offset = std::conditional_t<kFits, int, int64_t>;
  const bool source = f.source != nullptr;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int positions = static_cast<int>(in.sweep.positions), last_line = static_cast<int>(in.sweep.lines);
  const int tiles = (positions + kWarp - 1) / kWarp, lines = 1 << plan.lines_log2;
  const Offset padded = Offset(plan.tiles) * kWarp, array = padded << plan.lines_log2;
  T* state = reinterpret_cast<T*>(scratch);
  S* staged = reinterpret_cast<S*>(state + kForwardLines * padded);
  const auto tile_at = [&](int stage, int q) {
    return staged + stage * (source ? 5 : 4) * array + Offset(q) * (kWarp << plan.lines_log2);
  };
  const auto lines_from = [&](int t0) { return last_line - t0 < lines ? last_line - t0 : lines; };

  const auto stage_in = [&](int t0, int stage) {
    const int count = lines_from(t0);
    for (int q = warp; q < tiles; q += warps) {
      S* tile = tile_at(stage, q);
      const auto bring = [&](int number, const S* plane) {
        copy_in<kFits>(tile + number * array, plane, in.sweep, t0, count, q * kWarp, plan.lines_log2, plan.paired);
      };
#pragma unroll 1  // registers are scarcer here than instructions
      for (int tap = 0; tap < 3; ++tap) bring(tap, in.gates[tap]);
      if (plan.resident) {
        copy_in<false>(tile + 3 * array, in.x, in.sweep, t0, count, q * kWarp, plan.lines_log2, false);
      } else {
        bring(3, in.x);
      }
      if (source) bring(4, in.source);
    }
    copy_commit();
  };

  const auto values_at = [&](const S* tile, int k, int j) {
    const auto value = [&](int number) { return static_cast<T>(load(tile + number * array + k)); };
    const Taps<T> g{value(0), value(1), value(2)};
    return StepValues<T>{normalize_by(f.normalize, g, j > 0, j + 1 < positions), value(3), source ? value(4) : T(0)};
  };

  stage_in(0, 0);
  int stage = 0;
  for (int t0 = 0; t0 < last_line; t0 += lines) {
    const int count = lines_from(t0);
    const bool more = t0 + lines < last_line;
    if (plan.stages == 2 && more) {
      stage_in(t0 + lines, stage ^ 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    SPN_WARP_BARRIER(0);

    const LaneView<S> at = lane_view<S>(in.sweep, count, plan.lines_log2);
    StepValues<T> ahead{};
    if (kFits && warp * kWarp + lane < positions) ahead = values_at(tile_at(stage, warp), at(0), warp * kWarp + lane);
#pragma unroll 1
    for (int i = 0; i < count; ++i) {
      const int t = t0 + i;
      T* now = state + (t & 1) * padded;
      const T* before = state + (~t & 1) * padded;
      for (int q = warp; q < tiles; q += warps) {
        const int j = q * kWarp + lane;
        if (j < positions) {
          S* tile = tile_at(stage, q);
          const StepValues<T> v = kFits ? ahead : values_at(tile, at(i), j);
          T h = source ? v.lambda * v.x : v.x;
          if (t > 0) h = step_by(source, v.x, v.lambda, v.p, taps_at(before, j, j > 0, j + 1 < positions));
          store(now + j, h);
          put_result(tile + 3 * array, tile, at(i), h);
          const bool checkpoint = (t + 1) % kCheckpointLines == 0 && t + 1 < last_line;
          if (checkpoint && in.checkpoints) {
            store(in.checkpoints + static_cast<int64_t>(t / kCheckpointLines) * positions + j, h);
          }
          // The next line's weights do not wait for this line: they are ready when the barrier opens.
          if (kFits && i + 1 < count) ahead = values_at(tile, at(i + 1), j);
        }
        if (kFits) break;
      }
      SPN_BARRIER(0);
    }

    for (int q = warp; q < tiles; q += warps) {
      const LaneCopy<S> copy(in.sweep, t0, count, q * kWarp, plan.lines_log2);
      in.target.merge(tile_at(stage, q) + 3 * array, tile_at(stage, q), copy);
    }
    SPN_WARP_BARRIER(1);
    if (plan.stages == 1 && more) stage_in(t0 + lines, 0);
    if (plan.stages == 2) stage ^= 1;
  }
}

template <typename S, bool kFits>
SPN_KERNEL((kFits ? kForwardThreads<StateOf<S>> : kThreads), 1)
forward_kernel(ForwardArgs f, Plan plan) {
  SPN_SHARED(shared);
  ForwardSweep<S>* sweeps = reinterpret_cast<ForwardSweep<S>*>(shared);
  unsigned char* scratch = shared + kHeaderBytes;
  if (!kFits && !plan.in_shared) scratch = plan.workspace + blockIdx.x * plan.scratch_bytes;

  const int sweeps_a_task = plan.split ? 1 : f.directions;
  int turn = 0;
  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    for (int d = 0; d < sweeps_a_task; ++d, turn ^= 1) {
      if (threadIdx.x == 0) publish(sweeps + turn, forward_sweep<S>(f, plan, scratch, task, d));
      if (plan.resident && d == 0) load_resident<S>(f, plan, scratch, task);
      SPN_BARRIER(1);  // the sweep's pointers and x are there; the sweep before has left its merge
      run_forward<S, kFits>(f, plan, published(sweeps + turn), scratch);
    }
  }
}

}  // namespace cuda
}  // namespace spn
