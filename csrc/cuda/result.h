// Merges a tile of results into planes.
#pragma once

#include "step.h"
#include "tile.h"

namespace spn {
namespace cuda {

// A later direction replaces the maximum only if its value is larger, so that a tie stays with the first direction. NaN
// counts as larger than every number, as in torch.max.
template <typename T>
SPN_DEVICE bool beats(T value, T best) {
  return !(value <= best) && best == best;
}

template <typename T>
SPN_DEVICE T merge_scale(const Problem& problem) {
  return problem.merge == Merge::mean ? T(1) / T(problem.directions) : T(1);
}

template <typename S, typename T, int kCount>
SPN_DEVICE Pack<S, kCount> converted(const Pack<T, kCount>& piece) {
  Pack<S, kCount> result;
#pragma unroll
  for (int i = 0; i < kCount; ++i) result.v[i] = static_cast<S>(piece.v[i]);
  return result;
}

// The target of a sweep's results: `wide` in the dtype of the hidden state, or else `narrow` in the dtype of the
// tensors. The results are merged with `old`, which the previous sweeps left, or with `old_narrow` if rounding first
// changes nothing.
template <typename S>
struct Target {
  using T = StateOf<S>;
  const T* old;
  const S* old_narrow;
  T* wide;
  S* narrow;
  uint8_t* winner;
  bool maximum;
  uint8_t direction;
  T scale;
};

// The values that a lane merges its results with. They are loaded while the tile is computed. Gradients are only added,
// in full precision. Without kMaximum, all other code is omitted, because it would take registers.
template <typename S, int kPiece, bool kMaximum>
struct Merger {
  using T = StateOf<S>;
  using Pieces = LanePieces<S, kPiece>;

  Pack<T, kPiece> before[Pieces::kTurns];
  Pack<uint8_t, kPiece> winners[Pieces::kTurns] = {};

  // `shift` is the offset to the planes of another channel.
  SPN_DEVICE void read(const Target<S>& target, const Pieces& lane, int64_t shift) {
    if (target.old) {
      lane.for_turns([&](int turn, bool counts) {
        if (counts) before[turn] = load_piece<kPiece>(target.old + shift + lane.offset_of(turn));
      });
    } else if (kMaximum && target.old_narrow) {
      lane.for_turns([&](int turn, bool counts) {
        if (!counts) return;
        before[turn] = converted<T>(load_piece<kPiece>(target.old_narrow + shift + lane.offset_of(turn)));
      });
    }
    if (kMaximum && target.winner && target.direction > 1) {
      lane.for_turns([&](int turn, bool counts) {
        if (counts) winners[turn] = load_piece<kPiece>(target.winner + shift + lane.offset_of(turn));
      });
    }
  }

  SPN_DEVICE void write(const Target<S>& target, const T* tile, const Pieces& lane, int64_t shift) {
    const bool merges = target.old || (kMaximum && target.old_narrow);
    lane.for_turns([&](int turn, bool counts) {
      if (!counts) return;
      const int64_t o = shift + lane.offset_of(turn);
      auto result = load_piece<kPiece>(tile + lane.template place<T>(turn));
      if (kMaximum && merges && target.maximum) {
        take_larger(target, result, turn, winners[turn], o);
      } else {
#pragma unroll
        for (int i = 0; i < kPiece; ++i) {
          result.v[i] *= target.scale;
          if (merges) result.v[i] += before[turn].v[i];
        }
      }
      if (target.wide) {
        send_piece<kPiece>(target.wide + o, result);
      } else {
        send_piece<kPiece>(target.narrow + o, converted<S>(result));
      }
    });
  }

 private:
  SPN_DEVICE void take_larger(const Target<S>& target, Pack<T, kPiece>& result, int turn, Pack<uint8_t, kPiece> winner,
                              int64_t o) {
    bool take[kPiece];
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      take[i] = beats(result.v[i], before[turn].v[i]);
      if (!take[i]) result.v[i] = before[turn].v[i];
    }
    if (!target.winner) return;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) winner.v[i] = take[i] ? target.direction : winner.v[i];
    send_piece<kPiece>(target.winner + o, winner);
  }
};

// A plane of gradients: `narrow` in the dtype of the tensors, or `wide` in the dtype of the hidden state if it is a
// part of a sum.
template <typename S>
struct GradientPlane {
  S* narrow;
  StateOf<S>* wide;
};

// Write a finished tile of gradients to its plane: from `tile`, in the dtype of the tensors, or from `sums` if not
// null.
template <typename S, typename Pieces>
SPN_DEVICE void send_out(const S* tile, const StateOf<S>* sums, const GradientPlane<S>& to, const Pieces& lane,
                         int64_t shift) {
  using T = StateOf<S>;
  constexpr int kPiece = kLines / Pieces::kTurns;
  if constexpr (sizeof(S) == sizeof(T)) {
    if (!sums) sums = tile;
  }
  lane.for_turns([&](int turn, bool counts) {
    if (!counts) return;
    const int64_t o = shift + lane.offset_of(turn);
    if (!sums) {
      send_piece<kPiece>(to.narrow + o, load_piece<kPiece>(tile + lane.template place<S>(turn)));
      return;
    }
    const auto sum = load_piece<kPiece>(sums + lane.template place<T>(turn));
    if (to.wide) {
      send_piece<kPiece>(to.wide + o, sum);
    } else {
      send_piece<kPiece>(to.narrow + o, converted<S>(sum));
    }
  });
}

}  // namespace cuda
}  // namespace spn
