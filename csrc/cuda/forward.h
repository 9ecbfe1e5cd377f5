// The forward kernel.
//
//   block   one plane (n, c) and all its sweeps, one after the other; or one sweep of it (plan.split); or one run of
//           lines of a sweep that restarts (Problem::run)
//   warp w  positions 32 w .. 32 w + 31 of a line, or of a segment of the line (segments.h)
//   lane    one position, followed from line to line
//
//                 positions  0        31 32       63 64       95
//   line t - 1    line(0)    [  warp 0   |  warp 1   |  warp 2   ]    hidden state in shared memory
//                              | \ | / |                             three taps, also across warps
//   line t        line(1)    [  warp 0   |  warp 1   |  warp 2   ]    one barrier, then both lines swap roles
//
// Each warp stages its own tiles of gates, x and source (tile.h), so only the hidden state needs the barrier of the
// block. While one tile is computed, the next tile and the values that its results are merged with are already being
// loaded.
#pragma once

#include "forward_lines.h"

namespace spn {
namespace cuda {

// The order in which a block computes its items. An item is one segment of one tile of the block's run.
struct ForwardWalk {
  Segments segments;
  int positions, end, t0, number;

  template <typename S>
  SPN_DEVICE ForwardWalk(const ForwardSweep<S>& in, int threads)
      : segments(in.sweep.positions, threads),
        positions(static_cast<int>(in.sweep.positions)),
        end(in.end_line),
        t0(in.first_line),
        number(0) {}

  SPN_DEVICE Segment segment() const { return Segment(segments, number, positions); }
  SPN_DEVICE bool done() const { return t0 >= end; }
  SPN_DEVICE void next() {
    if (++number == segments.count) number = 0, t0 += kLines;
  }
};

template <typename S, int kPiece>
SPN_DEVICE void run_forward(const ForwardArgs& f, const Plan& plan, const ForwardSweep<S>& in,
                            const ForwardMemory<S>& memory) {
  using T = StateOf<S>;
  using Memory = ForwardMemory<S>;
  using Pieces = LanePieces<S, kPiece>;
  const int thread = threadIdx.x, warp_start = thread / kWarp * kWarp;
  const LaneView<S> view(in.sweep);

  const auto stage_in = [&](const ForwardWalk& item, int stage) {
    if (!item.done()) {
      const Segment segment = item.segment();
      const Pieces lane(in.sweep, item.t0, segment.start + warp_start, segment.first, segment.end);
      lane.bring([&](auto bring) {
        for (int tap = 0; tap < 3; ++tap) bring(memory.tile(stage, tap), in.gates[tap]);
        if (!plan.resident) bring(memory.tile(stage, Memory::x), in.x);
        if (in.source) bring(memory.tile(stage, Memory::source), in.source);
      });
      if (plan.resident && in.target.direction == 0) {
        lane.bring(lane, [&](auto bring) { bring(memory.resident_x, in.x); });
      }
    }
    copy_commit();
  };

  // Copy x of a tile from the resident plane. In the first sweep, each lane reads only values that it has copied there.
  const auto take_x = [&](const Pieces& lane, int stage) {
    lane.for_turns([&](int turn, bool there) {
      Pack<S, kPiece> piece{};
      if (there) piece = load_piece<kPiece>(memory.resident_x + lane.offset_of(turn));
      store_piece<kPiece>(memory.tile(stage, Memory::x) + lane.template place<S>(turn), piece);
    });
  };

  const auto compute = [&](const ForwardWalk& item, int stage, T& h) {
    const int t0 = item.t0, positions = item.positions;
    const Segment segment = item.segment();
    const bool carries = item.segments.count > 1;
    const int j = segment.start + thread;
    const bool inside = j >= segment.first && j < segment.end, owns = j >= segment.own && j < segment.own_end;
    T* const carry = memory.carry + j;
    const int parity = t0 / kLines & 1;
    const bool first = t0 == in.first_line;
    if (first || carries) {
      if (carries) SPN_BARRIER(1);
      h = !first && inside ? load(carry + parity * positions) : T(0);
      store(memory.line(1) + thread, h);
      SPN_BARRIER(2);
    }
    const ForwardLines<S> tile{f, in, memory, view, starts_of_tile(f, t0), stage, j > 0, j + 1 < positions};
    if (f.source) {
      tile.template run<true>(h);
    } else {
      tile.template run<false>(h);
    }
    if (owns && carries && t0 + kLines < item.end) store(carry + (parity ^ 1) * positions, h);
    if (owns && in.checkpoints && t0 + kLines < in.sweep.lines) {
      store(in.checkpoints + static_cast<int64_t>(t0 / kLines) * positions + j, h);
    }
  };

  ForwardWalk item(in, plan.threads), ahead = item;
  if (item.done()) return;  // the sweep has fewer pieces than runs
  int stage = 0;
  T h = T(0);
  // First load one item per stage; then, after each computed item, load the next one into the same buffer. The warp no
  // longer needs the tile in this buffer, and a lane overwrites only data that it has read itself.
  for (int missing = plan.stages;;) {
    if (missing == 0) {
      wait_for_tile(plan.stages);
      const Segment segment = item.segment();
      const Pieces own(in.sweep, item.t0, segment.start + warp_start, segment.own, segment.own_end);
      if (plan.resident) take_x(own, stage);  // with resident planes, lines are not divided and have no halos
      SPN_WARP_BARRIER(0);
      Merger<S, kPiece, true> merger;
      merger.read(in.target, own, 0);
      compute(item, stage, h);
      SPN_WARP_BARRIER(1);
      merger.write(in.target, memory.results(stage), own, 0);
      item.next();
      if (item.done()) break;
    } else {
      --missing;
    }
    stage_in(ahead, stage);
    ahead.next();
    if (plan.stages == 2) stage ^= 1;
  }
  copy_wait<0>();
}

template <typename S, int kPiece>
SPN_KERNEL(kThreads<S>, 1)
forward_kernel(ForwardArgs f, Plan plan) {
  SPN_SHARED(shared);
  ForwardSweep<S>* sweeps = reinterpret_cast<ForwardSweep<S>*>(shared);
  const ForwardMemory<S> memory(f, plan, shared + kHeaderBytes);

  for (int i = threadIdx.x; i < 2 * memory.line_pitch; i += blockDim.x) store(memory.lines - 1 + i, StateOf<S>(0));
  const int sweeps_a_task = plan.split ? 1 : f.directions;
  int turn = 0;
  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    for (int d = 0; d < sweeps_a_task; ++d, turn ^= 1) {
      if (threadIdx.x == 0) fill_sweep(to_publish(sweeps + turn), f, plan, memory, task, d);
      SPN_BARRIER(3);  // all threads see the pointers of the sweep, and x and the merge of the previous sweep
      run_forward<S, kPiece>(f, plan, published(sweeps + turn), memory);
    }
  }
}

}  // namespace cuda
}  // namespace spn
