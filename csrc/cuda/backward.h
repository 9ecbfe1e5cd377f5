// The backward kernel.
//
//   block, warp, lane   as in forward.h: a plane, 32 positions, one position
//
// A sweep is walked from its last tile to its first. A tile has the lines between two checkpoints of the forward pass.
// The kernel recomputes the hidden lines of a tile, then computes its gradients (backward_lines.h). Channels that share
// gates are processed one after another for each tile, so that the gates are read once for all of them. Their gradients
// are added up in the order of the channels.
//
// A gradient that is not requested is still computed, but not stored: all threads take the same branch on its null
// pointer. Without the gradient of the gates the hidden lines are zeros, and nothing is recomputed.
#pragma once

#include "backward_lines.h"
#include "backward_stage.h"

namespace spn {
namespace cuda {

template <typename S, int kPiece>
SPN_DEVICE void run_backward(const BackwardArgs& b, const Plan& plan, const BackwardSweep<S>& in,
                             const BackwardMemory<S>& memory) {
  using T = StateOf<S>;
  using Memory = BackwardMemory<S>;
  using Pieces = LanePieces<S, kPiece>;
  const int thread = threadIdx.x, warp_start = thread / kWarp * kWarp;
  const int positions = static_cast<int>(in.sweep.positions);
  if (in.first_line >= in.end_line) return;  // the sweep has fewer pieces than runs
  BackwardWalk item(b, in, plan), ahead = item;
  Stages at, ahead_at;
  T received = T(0);

  const auto compute = [&](auto source, auto resident) {
    using Planes = BackwardPlanes<S, kPiece, decltype(resident)::value>;
    const Segment segment = item.segment();
    const int j = segment.start + thread;
    const bool inside = j >= segment.first && j < segment.end, owns = j >= segment.own && j < segment.own_end;
    const LaneView<S> view(in.sweep);
    const ResidentView<S, kPiece> kept(view, resident_sweep(b, plan, in.direction), item.t0, j, inside);
    const Planes planes{memory, at, view, kept, item.channel, in.direction == 0};
    const BackwardLines<S, decltype(source)::value, Planes> tile{b,
                                                                 in,
                                                                 memory,
                                                                 at,
                                                                 planes,
                                                                 starts_of_tile(b, item.t0),
                                                                 j > 0,
                                                                 j + 1 < positions,
                                                                 item.first_of_gates(),
                                                                 item.first_of_source()};
    tile.up();
    // Two lines per channel: a tile reads one and writes the other, and the next tile swaps them.
    const auto carry = [&](int tile) {
      return memory.carry() + (int64_t{item.channel} * 2 + (tile & 1)) * positions + j;
    };
    if (in.sweep_ends && item.t0 + kLines >= in.end_line) {
      received = T(0);
    } else if (in.carries) {
      received = inside ? load(carry(item.t0 / kLines)) : T(0);
    }
    tile.down(received);
    if (in.carries && owns) store(carry(item.t0 / kLines + 1), received);
    SPN_WARP_BARRIER(0);
  };
  const auto compute_tile = [&](auto resident) {
    if (b.source_groups) {
      compute(std::true_type{}, resident);
    } else {
      compute(std::false_type{}, resident);
    }
  };

  // First load as many items as there are stages, then load one after each item that is computed. A lane then
  // overwrites only data that it has read itself, from a tile that its warp no longer needs.
  for (int missing = plan.stages;;) {
    if (missing == 0) {
      at.next(plan.stages, item.first_of_gates(), item.first_of_source());
      wait_for_tile(plan.stages);  // the first barrier waits for the other lanes
      const int64_t shift = item.channel * b.plane();
      // The warp's pieces of the positions that the item owns, in a plane or in a part of a sum.
      const auto own_pieces = [&](const Sweep& sweep) {
        const Segment segment = item.segment();
        return Pieces(sweep, item.t0, segment.start + warp_start, segment.own, segment.own_end);
      };
      Merger<S, kPiece, false> merger;
      if (plan.resident) {
        compute_tile(std::true_type{});
      } else {
        merger.read(in.target, own_pieces(in.sweep), shift);
        compute_tile(std::false_type{});
      }
      const Pieces own = own_pieces(in.sweep);
      if (b.grad_x && !plan.resident) {
        merger.write(in.target, memory.grad_x(at.channel()), own, shift);
      } else if (b.grad_x && in.direction + 1 == b.directions) {
        const Pieces kept(resident_sweep(b, plan, in.direction), item.t0, warp_start, 0, positions);
        send_sum<S, kPiece>(memory.sum(item.channel), kept, in.target.narrow + shift, own);
      }
      if (b.grad_gates && item.last_of_gates()) {
        const Pieces to = in.grad_gates[0].wide ? own_pieces(in.part) : own;
        for (int tap = 0; tap < 3; ++tap) {
          const T* sums = memory.sums.gates ? memory.sum_gates() + tap * Memory::kTile : nullptr;
          send_out<S>(memory.tile(at.gates(), Memory::gates + tap), sums, in.grad_gates[tap], to, 0);
        }
      }
      if (b.grad_source && item.last_of_source()) {
        const Pieces to = in.grad_source.wide ? own_pieces(in.part) : own;
        const T* sums = memory.sums.source ? memory.sum_source() : nullptr;
        send_out<S>(memory.source(at.source()), sums, in.grad_source, to, source_shift(b, item.channel));
      }
      item.next();
      if (item.done(in.first_line)) break;
    } else {
      --missing;
    }
    if (!ahead.done(in.first_line)) {
      ahead_at.next(plan.stages, ahead.first_of_gates(), ahead.first_of_source());
      bring_item<S, kPiece>(b, plan, in, memory, ahead, ahead_at);
    }
    copy_commit();
    ahead.next();
  }
  copy_wait<0>();
}

template <typename S, int kPiece>
SPN_KERNEL(kThreads<S>, 1)
backward_kernel(BackwardArgs b, Plan plan) {
  SPN_SHARED(shared);
  BackwardSweep<S>* sweeps = reinterpret_cast<BackwardSweep<S>*>(shared);
  const BackwardMemory<S> memory(b, plan, shared + kHeaderBytes);

  const int values = BackwardMemory<S>::kLineCount * memory.pitch;
  for (int i = threadIdx.x; i < values; i += blockDim.x) store(memory.lines - 1 + i, StateOf<S>(0));
  const int sweeps_a_task = plan.split ? 1 : b.directions;
  int turn = 0;
  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    for (int d = 0; d < sweeps_a_task; ++d, turn ^= 1) {
      if (threadIdx.x == 0) fill_sweep(to_publish(sweeps + turn), b, plan, task, d);
      SPN_BARRIER(3);  // publishes the pointers of the sweep, and the sum of the previous sweep
      run_backward<S, kPiece>(b, plan, published(sweeps + turn), memory);
    }
  }
}

}  // namespace cuda
}  // namespace spn
