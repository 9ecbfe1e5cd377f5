// Loads an item of the backward pass: into the tiles of a stage and, in the first sweep, into the resident planes.
#pragma once

#include "backward_sweep.h"
#include "backward_walk.h"

namespace spn {
namespace cuda {

// Offset from the source of a task's first channel to the source of another channel.
SPN_DEVICE int64_t source_shift(const Problem& p, int channel) {
  return p.source_groups ? channel / (p.channels / p.source_groups) * p.plane() : 0;
}

// Start loading a lane's pieces of the resident planes. `kept` locates its pieces in those planes.
template <typename S, int kPiece>
SPN_DEVICE void bring_planes(const BackwardMemory<S>& memory, const BackwardSweep<S>& in,
                             const LanePieces<S, kPiece>& lane, const LanePieces<S, kPiece>& kept, int channel,
                             int64_t shift) {
  using Memory = BackwardMemory<S>;
  lane.bring(kept, [&](auto bring) {
    const auto bring_kept = [&](typename Memory::Resident array, const auto* from) {
      using V = std::decay_t<decltype(*from)>;
      if (memory.keeps(array)) bring(memory.template plane<V>(array, channel), from + shift);
    };
    if (in.x) bring_kept(Memory::kept_x, in.x);
    bring_kept(Memory::kept_grad, in.grad);
    if (in.winner) bring_kept(Memory::kept_winner, in.winner);
  });
}

// Load the data that the item needs and the previous item did not have. Gates that channels share are loaded once.
template <typename S, int kPiece>
SPN_DEVICE void bring_item(const BackwardArgs& b, const Plan& plan, const BackwardSweep<S>& in,
                           const BackwardMemory<S>& memory, const BackwardWalk& item, const Stages& at) {
  using Memory = BackwardMemory<S>;
  using Pieces = LanePieces<S, kPiece>;
  const int thread = threadIdx.x, warp_start = thread / kWarp * kWarp;
  const Segment segment = item.segment();
  const int64_t shift = item.channel * b.plane();
  const Pieces lane(in.sweep, item.t0, segment.start + warp_start, segment.first, segment.end);
  lane.bring([&](auto bring) {
    if (item.first_of_gates()) {
      for (int tap = 0; tap < 3; ++tap) bring(memory.tile(at.gates(), Memory::gates + tap), in.gates[tap]);
    }
    if (in.x && !memory.keeps(Memory::kept_x)) bring(memory.tile(at.channel(), Memory::x), in.x + shift);
    if (!memory.keeps(Memory::kept_grad)) bring(memory.tile(at.channel(), Memory::grad), in.grad + shift);
    if (in.winner && !memory.keeps(Memory::kept_winner)) bring(memory.winner(at.channel()), in.winner + shift);
    if (in.source && item.first_of_source()) {
      bring(memory.source(at.source()), in.source + source_shift(b, item.channel));
    }
  });
  if (plan.resident && in.direction == 0) {
    const Pieces kept(resident_sweep(b, plan, 0), item.t0, warp_start, 0, item.positions);
    bring_planes(memory, in, lane, kept, item.channel, shift);
  }
  const int j = segment.start + thread;
  const bool there = b.reads_hidden() && item.t0 > 0 && j >= segment.first && j < segment.end;
  const int64_t line =
      item.channel * b.checkpoint_offset(b.directions) + (item.t0 / kCheckpointLines - 1) * int64_t{item.positions};
  copy_async<sizeof(StateOf<S>)>(memory.checkpoint(at.channel()) + thread, there ? in.checkpoints + line + j : nullptr,
                                 there);
}

}  // namespace cuda
}  // namespace spn
