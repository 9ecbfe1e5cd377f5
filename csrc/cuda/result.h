// What becomes of a step's results: kept in the tiles they were computed from, then merged into planes.
#pragma once

#include <cstring>

#include "step.h"
#include "tile.h"

namespace spn {
namespace cuda {

// A result in the state's precision takes the place of values that its step has consumed, at index k: of one tile where
// both are as wide, its two halves of two tiles where values have 2 bytes.
template <typename S>
SPN_DEVICE void put_result(S* first, S* second, int k, StateOf<S> value) {
  if constexpr (sizeof(S) == sizeof(StateOf<S>)) {
    store(first + k, value);
  } else {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    store(reinterpret_cast<uint16_t*>(first) + k, static_cast<uint16_t>(bits));
    store(reinterpret_cast<uint16_t*>(second) + k, static_cast<uint16_t>(bits >> 16));
  }
}

template <typename S>
SPN_DEVICE StateOf<S> get_result(const S* first, const S* second, int k) {
  if constexpr (sizeof(S) == sizeof(StateOf<S>)) {
    return load(first + k);
  } else {
    const uint32_t low = load(reinterpret_cast<const uint16_t*>(first) + k);
    const uint32_t high = load(reinterpret_cast<const uint16_t*>(second) + k);
    const uint32_t bits = low | high << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
  }
}

// A later direction wins only if it is larger: a tie stays with the first. NaN beats every number, as in torch.max.
template <typename T>
SPN_DEVICE bool beats(T value, T best) {
  return value > best || (value != value && best == best);
}

template <typename T>
SPN_DEVICE T merge_scale(const Problem& problem) {
  return problem.merge == Merge::mean ? T(1) / T(problem.directions) : T(1);
}

// Where a sweep's result goes: `wide` in the state's dtype or else `narrow` in the tensors', merged with what the
// sweeps before it left in `old`, or `old_narrow` where rounding first changes nothing.
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

  SPN_DEVICE void write(int64_t o, T value, T before) const {
    value *= scale;
    const bool merges = old || old_narrow;
    if (merges && maximum) {
      const bool take = beats(value, before);
      if (winner && direction == 1) {
        store(winner + o, static_cast<uint8_t>(take));
      } else if (winner) {
        store_where(take, winner + o, direction);
      }
      value = take ? value : before;
    } else if (merges) {
      value += before;
    }
    if (wide) {
      store(wide + o, value);
    } else {
      store(narrow + o, static_cast<S>(value));
    }
  }

  // Merges a tile of results. What is merged with is read several values ahead of the first that is written.
  SPN_DEVICE void merge(const S* first, const S* second, const LaneCopy<S>& lane) const {
    constexpr int kAhead = 4;  // a tile has at least 4 lines
    for (int number = 0; number < lane.turns; number += kAhead) {
      T before[kAhead];
      if (old) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) lane.turn(number + i, [&](int, int64_t o) { before[i] = load(old + o); });
      } else if (old_narrow) {
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
          lane.turn(number + i, [&](int, int64_t o) { before[i] = static_cast<T>(load(old_narrow + o)); });
        }
      }
#pragma unroll
      for (int i = 0; i < kAhead; ++i) {
        lane.turn(number + i, [&](int k, int64_t o) { write(o, get_result(first, second, k), before[i]); });
      }
    }
  }
};

}  // namespace cuda
}  // namespace spn
