// Where the backward kernel keeps what: see the map of rungs in backward.h, and backward_scratch in plan.h for its
// size.
#pragma once

#include "plan.h"
#include "step.h"
#include "tile.h"

namespace spn {
namespace cuda {

// Scratch memory: lines of the state, then tiles, each array in one piece.
template <typename S, bool kShared>
struct BackwardScratch {
  using T = StateOf<S>;
  using Offset = std::conditional_t<kShared, int, int64_t>;
  enum Array : int { gate = 0, x = 3, grad = 4, source = 5 };

  Offset padded, array;
  int tile;  // values
  T *lines, *wide_tiles;
  S* tiles;
  uint8_t* winner_tiles;

  SPN_DEVICE BackwardScratch(const Plan& plan, bool has_source, unsigned char* memory)
      : padded(Offset(plan.tiles) * kWarp), array(padded << plan.lines_log2), tile(kWarp << plan.lines_log2) {
    lines = reinterpret_cast<T*>(memory);
    wide_tiles = lines + kBackwardLines * padded;
    tiles = reinterpret_cast<S*>(wide_tiles + ((plan.wide_gates ? 3 : 0) + (plan.wide_source ? 1 : 0)) * array);
    winner_tiles = reinterpret_cast<uint8_t*>(tiles + (has_source ? 6 : 5) * array);
  }

  SPN_DEVICE S* at(int number, int q) const { return tiles + number * array + Offset(q) * tile; }
  SPN_DEVICE T* wide(int number, int q) const { return wide_tiles + number * array + Offset(q) * tile; }
  SPN_DEVICE uint8_t* winner(int q) const { return winner_tiles + Offset(q) * tile; }

  // Lines of a block of kCheckpointLines.
  SPN_DEVICE T* rung(int number) const { return lines + number * padded; }
  SPN_DEVICE T* between(int l) const { return lines + (kRungs + l % kRungLines) * padded; }
  SPN_DEVICE const T* before(int l) const { return l % kRungLines ? between(l - 1) : rung(l / kRungLines); }
  SPN_DEVICE T* after(int l) const { return (l + 1) % kRungLines ? between(l) : rung((l + 1) / kRungLines); }
  // What line t sends to line t - 1: taps minus and plus, neighbours read them, and tap zero, which stays in its
  // thread.
  SPN_DEVICE T* sent_minus(int t) const { return lines + (kRungs + kRungLines - 1 + (t & 1)) * padded; }
  SPN_DEVICE T* sent_plus(int t) const { return sent_minus(t) + 2 * padded; }
  SPN_DEVICE T* sent_zero() const { return lines + (kBackwardLines - 1) * padded; }
};

}  // namespace cuda
}  // namespace spn
