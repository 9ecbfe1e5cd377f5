// Where a lane of the backward pass reads x, grad and winner at its position and writes grad_x: in tiles that are
// loaded and replaced, or in planes that stay in shared memory.
#pragma once

#include "backward_sweep.h"
#include "backward_walk.h"

namespace spn {
namespace cuda {

template <typename S, int kPiece, bool kResident>
struct BackwardPlanes {
  using T = StateOf<S>;
  using Memory = BackwardMemory<S>;
  static constexpr int kCount = kTogether<S>;

  const Memory& memory;
  const Stages& at;
  const LaneView<S>& view;
  ResidentView<S, kPiece> kept;
  int channel;
  bool first_sweep;

  SPN_DEVICE void x(int line, T (&values)[kCount]) const {
    read(Memory::kept_x, memory.tile(at.channel(), Memory::x), line, values);
  }
  SPN_DEVICE void grad(int line, T (&values)[kCount]) const {
    read(Memory::kept_grad, memory.tile(at.channel(), Memory::grad), line, values);
  }
  SPN_DEVICE void winner(int line, uint8_t (&values)[kCount]) const {
    read(Memory::kept_winner, memory.winner(at.channel()), line, values);
  }

  // Store the contribution of this sweep to grad_x, or the sum with the previous sweeps.
  SPN_DEVICE void put_grad_x(int line, T (&values)[kCount]) const {
    if (!kResident) return view.write(memory.grad_x(at.channel()), line, values);
    T* const sum = memory.sum(channel);
    if (!first_sweep) {
      T before[kCount];
      kept.read(sum, line, before);
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] += before[k];
    }
    kept.write(sum, line, values);
  }

 private:
  template <typename V, typename U>
  SPN_DEVICE void read(typename Memory::Resident array, const V* tile, int line, U (&values)[kCount]) const {
    if (kResident && memory.keeps(array)) {
      kept.read(memory.template plane<V>(array, channel), line, values);
    } else {
      view.read(tile, line, values);
    }
  }
};

// Write a lane's pieces of the finished sum over the sweeps to grad_x.
template <typename S, int kPiece>
SPN_DEVICE void send_sum(const StateOf<S>* sum, const LanePieces<S, kPiece>& kept, S* grad_x,
                         const LanePieces<S, kPiece>& lane) {
  lane.for_turns([&](int turn, bool counts) {
    if (!counts) return;
    const auto piece = load_piece<kPiece>(sum + kept.offset_of(turn));
    send_piece<kPiece>(grad_x + lane.offset_of(turn), converted<S>(piece));
  });
}

}  // namespace cuda
}  // namespace spn
