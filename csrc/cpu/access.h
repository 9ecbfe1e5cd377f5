// How a value is read from or written to a plane: each kind of access, for one value or one vector at a time.
#pragma once

#include "../problem.h"
#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

template <typename S, typename T>
struct Read {
  const S* plane;

  SPN_HD T operator()(int64_t o) const { return static_cast<T>(plane[o]); }
  SPN_HD Vector<T> vector(int64_t o) const { return load_as<T>(plane + o); }
  SPN_HD void prefetch(int64_t o) const { prefetch_far(plane + o); }
};

template <typename S, typename T>
struct ReadScaled {
  const S* plane;
  T scale;

  SPN_HD T operator()(int64_t o) const { return static_cast<T>(plane[o]) * scale; }
  SPN_HD Vector<T> vector(int64_t o) const { return load_as<T>(plane + o) * scale; }
  SPN_HD void prefetch(int64_t o) const { prefetch_far(plane + o); }
};

// The gradient of a maximum goes to the selected direction.
template <typename S, typename T>
struct ReadWhereWinner {
  const S* plane;
  const uint8_t* winner;
  int8_t direction;

  SPN_HD T operator()(int64_t o) const { return winner[o] == direction ? static_cast<T>(plane[o]) : T(0); }
  SPN_HD Vector<T> vector(int64_t o) const {
    const auto won = load_bits<Lanes<int8_t, T>>(winner + o) == direction;
    return __builtin_convertvector(won, MaskOf<T>) ? load_as<T>(plane + o) : Vector<T>{};
  }
  SPN_HD void prefetch(int64_t o) const {
    prefetch_far(plane + o);
    prefetch_far(winner + o);
  }
};

template <typename S, typename T>
struct Assign {
  S* plane;
  T scale;

  SPN_HD void operator()(int64_t o, T value) const { plane[o] = static_cast<S>(value * scale); }
  SPN_HD void vector(int64_t o, Vector<T> value) const { store_as(plane + o, value * scale); }
  SPN_HD void prefetch(int64_t) const {}
};

// Like Assign, but writes past the caches, for results too large to stay in them. Rows must begin with a cache line.
template <typename T>
struct Stream {
  T* plane;

  SPN_HD void operator()(int64_t o, T value) const { plane[o] = value; }
  SPN_HD void vector(int64_t o, Vector<T> value) const { stream_as<T>(plane + o, value); }
  SPN_HD void prefetch(int64_t) const {}
};

template <typename T>
struct Add {
  T* plane;
  T scale;

  SPN_HD void operator()(int64_t o, T value) const { plane[o] += value * scale; }
  SPN_HD void vector(int64_t o, Vector<T> value) const { store_as(plane + o, load_as<T>(plane + o) + value * scale); }
  SPN_HD void prefetch(int64_t o) const { prefetch_far(plane + o); }
};

// A later direction replaces the maximum only if its value is larger, so that a tie stays with the first direction. NaN
// counts as larger than every number, as in torch.max.
template <typename V>
SPN_HD auto beats(V value, V best) {
  return (value > best) | ((value != value) & (best == best));
}

template <typename T>
struct Maximum {
  T* plane;

  SPN_HD void operator()(int64_t o, T value) const { plane[o] = beats(value, plane[o]) ? value : plane[o]; }
  SPN_HD void vector(int64_t o, Vector<T> value) const {
    const Vector<T> best = load_as<T>(plane + o);
    store_as(plane + o, beats(value, best) ? value : best);
  }
  SPN_HD void prefetch(int64_t o) const { prefetch_far(plane + o); }
};

template <typename T>
struct MaximumWithWinner {
  T* plane;
  uint8_t* winner;
  int8_t direction;

  SPN_HD void operator()(int64_t o, T value) const {
    const bool take = beats(value, plane[o]);
    plane[o] = take ? value : plane[o];
    winner[o] = take ? direction : winner[o];
  }
  SPN_HD void vector(int64_t o, Vector<T> value) const {
    const Vector<T> best = load_as<T>(plane + o);
    const auto take = beats(value, best);
    store_as(plane + o, take ? value : best);
    const auto narrow = __builtin_convertvector(take, Lanes<int8_t, T>);
    store_bits(winner + o, (load_bits<Lanes<int8_t, T>>(winner + o) & ~narrow) | (narrow & direction));
  }
  SPN_HD void prefetch(int64_t o) const {
    prefetch_far(plane + o);
    prefetch_far(winner + o);
  }
};

// Call write(i, values[i]) for every i.
template <typename T, typename Write>
SPN_HD void write_values(const T* __restrict values, int64_t count, Write write) {
  constexpr int n = kLanes<T>;
  int64_t i = 0;
  for (; i + n <= count; i += n) write.vector(i, load_as<T>(values + i));
  for (; i < count; ++i) write(i, values[i]);
}

template <typename S, typename T>
SPN_HD void round_values(const T* values, int64_t count, S* rounded) {
  write_values(values, count, Assign<S, T>{rounded, T(1)});
}

template <typename T>
T merge_scale(const Problem& problem) {
  return problem.merge == Merge::mean ? T(1) / T(problem.directions) : T(1);
}

// Pass `visit` the access that merges sweep d into `plane`. The first sweep assigns, because the plane is unwritten.
template <typename T, typename Visit>
SPN_HD void with_merge(const Problem& problem, int d, T* plane, uint8_t* winner, Visit visit) {
  if (d == 0) {
    visit(Assign<T, T>{plane, merge_scale<T>(problem)});
  } else if (problem.merge != Merge::max) {
    visit(Add<T>{plane, merge_scale<T>(problem)});
  } else if (winner) {
    visit(MaximumWithWinner<T>{plane, winner, static_cast<int8_t>(d)});
  } else {
    visit(Maximum<T>{plane});
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
