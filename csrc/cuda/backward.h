// The backward kernel.
//
//   block, warp, lane   as in forward.h: a plane, 32 positions, one position
//
// A sweep is walked from its last block of 16 lines to its first. The block's hidden lines are recomputed from the
// checkpoint before it, in two steps that keep 7 lines rather than 16:
//
//   up     rung 0 = checkpoint -> rung 1 = line 3 -> rung 2 = line 7 -> rung 3 = line 11
//   down   for each rung from the last: its three other lines, then the adjoint of its four lines, last one first
//
// What line t sends back to line t - 1 goes through shared memory, two lines that change places: one barrier a line.
// Gradients replace the values that their step has consumed: gates, source, and grad (and x, see put_result).
#pragma once

#include "backward_scratch.h"
#include "backward_sweep.h"
#include "plan.h"
#include "tile.h"

namespace spn {
namespace cuda {

template <typename S, bool kShared>
SPN_DEVICE void run_backward(const BackwardArgs& b, const Plan& plan, const BackwardSweep<S>& in,
                             unsigned char* memory) {
  using T = StateOf<S>;
  using Scratch = BackwardScratch<S, kShared>;
  const bool source = b.source != nullptr;
  const Scratch scratch(plan, source, memory);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int positions = static_cast<int>(in.sweep.positions), last_line = static_cast<int>(in.sweep.lines);
  const int tiles = (positions + kWarp - 1) / kWarp, lines = 1 << plan.lines_log2;

  int t0 = 0;     // the block's first line
  int count = 0;  // its lines
  const auto lines_of = [&](int first) { return count - first < lines ? count - first : lines; };

  // Brings in the tiles that begin at line `first` of the block.
  const auto bring = [&](int first, bool with_grad) {
    for (int q = warp; q < tiles; q += warps) {
      const auto copy = [&](int number, const S* plane) {
        copy_in<kShared>(scratch.at(number, q), plane, in.sweep, t0 + first, lines_of(first), q * kWarp,
                         plan.lines_log2, plan.paired);
      };
      for (int tap = 0; tap < 3; ++tap) copy(Scratch::gate + tap, in.gates[tap]);
      copy(Scratch::x, in.x);
      if (source) copy(Scratch::source, in.source);
      if (!with_grad) continue;
      copy(Scratch::grad, in.grad);
      if (in.winner) {
        const LaneCopy<S> lanes(in.sweep, t0 + first, lines_of(first), q * kWarp, plan.lines_log2);
        lanes.for_turns([&](int k, int64_t o) { store(scratch.winner(q) + k, load(in.winner + o)); });
      }
    }
    copy_commit();
    copy_wait<0>();
    SPN_WARP_BARRIER(0);
  };

  // f(q, index in the tile, position, has_minus, has_plus) for this thread's positions of line `l` of the block.
  const auto for_line = [&](int l, auto f) {
    const int k = lane_view<S>(in.sweep, lines_of(l & ~(lines - 1)), plan.lines_log2)(l & (lines - 1));
    for (int q = warp; q < tiles; q += warps) {
      const int j = q * kWarp + lane;
      if (j < positions) f(q, k, j, j > 0, j + 1 < positions);
    }
  };
  const auto value = [&](int number, int q, int k) { return static_cast<T>(load(scratch.at(number, q) + k)); };
  const auto gates_at = [&](int q, int k) { return Taps<T>{value(0, q, k), value(1, q, k), value(2, q, k)}; };

  const auto forward_line = [&](int l) {
    for_line(l, [&](int q, int k, int j, bool has_minus, bool has_plus) {
      const T x = value(Scratch::x, q, k), lambda = source ? value(Scratch::source, q, k) : T(0);
      T h = source ? lambda * x : x;
      if (t0 + l > 0) {
        const Taps<T> p = normalize_by(b.normalize, gates_at(q, k), has_minus, has_plus);
        h = step_by(source, x, lambda, p, taps_at(scratch.before(l), j, has_minus, has_plus));
      }
      store(scratch.after(l) + j, h);
    });
    SPN_BARRIER(0);
  };

  const auto adjoint_line = [&](int l) {
    const int t = t0 + l;
    for_line(l, [&](int q, int k, int j, bool has_minus, bool has_plus) {
      T a = value(Scratch::grad, q, k) * in.grad_scale;
      if (in.winner && load(scratch.winner(q) + k) != in.direction) a = T(0);
      if (t + 1 < last_line) {
        // Position j is tap k of position j - k of line t + 1.
        a += (has_plus ? load(scratch.sent_minus(t + 1) + j + 1) : T(0)) + load(scratch.sent_zero() + j) +
             (has_minus ? load(scratch.sent_plus(t + 1) + j - 1) : T(0));
      }
      const T x = value(Scratch::x, q, k), lambda = source ? value(Scratch::source, q, k) : T(0);
      T grad_x = source ? lambda * a : a;
      Taps<T> dg{T(0), T(0), T(0)};
      if (t > 0) {
        const Taps<T> g = gates_at(q, k), previous = taps_at(scratch.before(l), j, has_minus, has_plus);
        const Taps<T> p = normalize_by(b.normalize, g, has_minus, has_plus);
        grad_x = source ? input_adjoint<true>(a, lambda, p) : input_adjoint<false>(a, lambda, p);
        const Taps<T> dp = source ? gate_adjoint<true>(a, x, previous, has_minus, has_plus)
                                  : gate_adjoint<false>(a, x, previous, has_minus, has_plus);
        dg = normalize_adjoint_by(b.normalize, g, p, dp, has_minus, has_plus);
        store(scratch.sent_minus(t) + j, p.minus * a);
        store(scratch.sent_zero() + j, p.zero * a);
        store(scratch.sent_plus(t) + j, p.plus * a);
      }
      put_result(scratch.at(Scratch::grad, q), scratch.at(Scratch::x, q), k, grad_x);
      const auto put = [&](bool wide, int wide_number, int number, T gradient) {
        if (wide) {
          store(scratch.wide(wide_number, q) + k, gradient);
        } else {
          store(scratch.at(number, q) + k, static_cast<S>(gradient));
        }
      };
      put(plan.wide_gates, 0, Scratch::gate + 0, dg.minus);
      put(plan.wide_gates, 1, Scratch::gate + 1, dg.zero);
      put(plan.wide_gates, 2, Scratch::gate + 2, dg.plus);
      if (source) put(plan.wide_source, plan.wide_gates ? 3 : 0, Scratch::source, x * a);
    });
    SPN_BARRIER(1);
  };

  const auto send_out = [&](int first) {
    for (int q = warp; q < tiles; q += warps) {
      const LaneCopy<S> lanes(in.sweep, t0 + first, lines_of(first), q * kWarp, plan.lines_log2);
      in.target.merge(scratch.at(Scratch::grad, q), scratch.at(Scratch::x, q), lanes);
      const auto put = [&](bool wide, int wide_number, int number, void* plane) {
        lanes.for_turns([&](int k, int64_t o) {
          if (wide) {
            store(static_cast<T*>(plane) + o, load(scratch.wide(wide_number, q) + k));
          } else {
            store(static_cast<S*>(plane) + o, load(scratch.at(number, q) + k));
          }
        });
      };
      for (int tap = 0; tap < 3; ++tap) put(plan.wide_gates, tap, Scratch::gate + tap, in.grad_gates[tap]);
      if (source) put(plan.wide_source, plan.wide_gates ? 3 : 0, Scratch::source, in.grad_source);
    }
    SPN_WARP_BARRIER(1);
  };

  for (int block = (last_line - 1) / static_cast<int>(kCheckpointLines); block >= 0; --block) {
    t0 = block * static_cast<int>(kCheckpointLines);
    count = last_line - t0 < kCheckpointLines ? last_line - t0 : static_cast<int>(kCheckpointLines);
    const int last_rung = (count - 1) / kRungLines, last_tile = (count - 1) & ~(lines - 1);
    if (block > 0) {
      const T* checkpoint = in.checkpoints + static_cast<int64_t>(block - 1) * positions;
      for_line(0, [&](int, int, int j, bool, bool) { store(scratch.rung(0) + j, load(checkpoint + j)); });
      SPN_BARRIER(2);
    }
    // Up. The last tile is brought in here, complete, even if no line of it is needed yet.
    for (int l = 0; l <= last_tile || l < last_rung * kRungLines; ++l) {
      if (l % lines == 0) bring(l, l == last_tile);
      if (l < last_rung * kRungLines) forward_line(l);
    }
    // Down.
    for (int rung = last_rung; rung >= 0; --rung) {
      const int first = rung * kRungLines, end = count < first + kRungLines ? count : first + kRungLines;
      const int tile = first & ~(lines - 1);
      if (tile != last_tile && (first + kRungLines) % lines == 0) bring(tile, true);
      for (int l = first; l + 1 < end; ++l) forward_line(l);
      for (int l = end - 1; l >= first; --l) adjoint_line(l);
      if (first == tile) send_out(tile);
    }
  }
}

template <typename S, bool kShared>
SPN_KERNEL(kThreads, 1)
backward_kernel(BackwardArgs b, Plan plan) {
  SPN_SHARED(shared);
  BackwardSweep<S>* sweeps = reinterpret_cast<BackwardSweep<S>*>(shared);
  unsigned char* scratch = kShared ? shared + kHeaderBytes : plan.workspace + blockIdx.x * plan.scratch_bytes;

  const int sweeps_a_task = plan.split ? 1 : b.directions;
  int turn = 0;
  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    for (int d = 0; d < sweeps_a_task; ++d, turn ^= 1) {
      if (threadIdx.x == 0) publish(sweeps + turn, backward_sweep<S>(b, plan, task, d));
      SPN_BARRIER(3);  // the sweep's pointers are there; the sweep before has left its sum
      run_backward<S, kShared>(b, plan, published(sweeps + turn), scratch);
    }
  }
}

}  // namespace cuda
}  // namespace spn
