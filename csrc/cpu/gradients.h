// Reads the gradient of the result for the adjoint of a sweep, and writes the gradients of gates and source: sums over
// the planes that share them.
#pragma once

#include "planes.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Pass `visit` a function that maps plane q to the access that reads dL/dh of sweep d.
template <typename S, typename Visit>
void with_result_gradient(const BackwardArgs& b, int d, Visit visit) {
  using T = StateOf<S>;
  const S* grad = static_cast<const S*>(b.grad);
  const int64_t plane = b.plane();
  if (b.merge == Merge::none) {
    visit([=, &b](int64_t q) {
      const int64_t n = q / b.channels, c = q % b.channels;
      return Read<S, T>{grad + ((n * b.directions + d) * b.channels + c) * plane};
    });
  } else if (b.merge == Merge::max) {
    visit([=, &b](int64_t q) {
      return ReadWhereWinner<S, T>{grad + q * plane, b.winner + q * plane, static_cast<int8_t>(d)};
    });
  } else {
    visit([=, &b](int64_t q) { return ReadScaled<S, T>{grad + q * plane, merge_scale<T>(b)}; });
  }
}

// Lines of the gradient of the source, and their sum over the consecutive planes that share the source.
template <typename T>
struct SharedGradient {
  T* lines;  // of the current planes

  SharedGradient(Slot slot, Slot total, int64_t size)
      : lines(scratch<T>(slot, size)), total_slot_(total), size_(size) {}

  // Add the current lines. Return the sum of the group after its last planes, and null before.
  T* add(bool first, bool last) {
    if (first && last) return lines;
    T* total = scratch<T>(total_slot_, size_);
    if (first) {
      std::copy_n(lines, size_, total);
    } else {
      for (int64_t i = 0; i < size_; ++i) total[i] += lines[i];
    }
    return last ? total : nullptr;
  }

 private:
  Slot total_slot_;
  int64_t size_;
};

template <typename S, typename Inputs>
class GateGradients;
template <typename S, typename Inputs>
class SourceGradients;

// Return whether to write the gradients of the gates past the caches. They are most of what this pass writes.
template <typename S>
bool streams_gate_gradients(const BackwardArgs& b) {
  constexpr int64_t kLargest = int64_t{16} << 20;  // bytes that probably stay in the caches
  const int64_t planes = b.batch * b.directions * 3 * b.gate_groups;
  const bool whole_lines =
      b.width % kLanes<S> == 0 && reinterpret_cast<uintptr_t>(b.grad_gates) % SPN_VECTOR_BYTES == 0;
  return kStreams && b.grad_gates && std::is_same_v<S, StateOf<S>> && whole_lines &&
         planes * b.plane() * static_cast<int64_t>(sizeof(S)) > kLargest;
}

template <typename S>
class GateGradients<S, PlaneInputs<S>> {
 public:
  using T = StateOf<S>;

  GateGradients(const BackwardArgs& b, const PlaneInputs<S>& inputs, int64_t begin, int64_t end, int d)
      : b_(b),
        inputs_(inputs),
        begin_(begin),
        end_(end),
        d_(d),
        size_(PlaneInputs<S>::kLines * inputs.stride),
        lines_(scratch<T>(Slot::grad_gates, 3 * size_)),
        streams_(streams_gate_gradients<S>(b)),
        direct_(b.grad_gates && !streams_ && std::is_same_v<S, T> && inputs.sweep.position_stride == 1 &&
                b.gate_size() == 1) {}

  // Return whether the gradient of plane q is added to the gradient of the planes before it.
  bool adds(int64_t q) const { return !enters_group(b_.gate_size(), q, begin_); }

  // If no other plane contributes to a gradient and the sweep's lines are rows of memory, it is written directly.
  TapLines<T> line(const Block& block, int64_t q, int64_t i) const {
    if (direct_) {
      const int64_t o = inputs_.sweep.offset(block.first + i, 0);
      const auto at = [&](int tap) { return reinterpret_cast<T*>(plane(q, tap)) + o; };
      return {at(0), at(1), at(2)};
    }
    T* line = lines_ + i * inputs_.stride;
    return {line, line + size_, line + 2 * size_};
  }

  void store(const Block& block, int64_t q) {
    if (direct_ || !leaves_group(b_.gate_size(), q, end_)) return;
    inputs_.gates().adjoint(block, lines_, inputs_.stride, size_);
    for (int tap = 0; tap < 3; ++tap) {
      const T* from = lines_ + tap * size_;
      if (streams_) {
        const Stream<T> write{reinterpret_cast<T*>(plane(q, tap))};
        scatter_lines(inputs_.sweep, block, from, inputs_.stride, write);
      } else {
        scatter_lines(inputs_.sweep, block, from, inputs_.stride, Assign<S, T>{plane(q, tap), T(1)});
      }
    }
    if (streams_) finish_streams();
  }

 private:
  S* plane(int64_t q, int tap) const { return static_cast<S*>(b_.grad_gates) + gate_offset(b_, q, d_, tap); }

  const BackwardArgs& b_;
  const PlaneInputs<S>& inputs_;
  int64_t begin_, end_;
  int d_;
  int64_t size_;
  T* lines_;
  bool streams_, direct_;
};

template <typename S>
class SourceGradients<S, PlaneInputs<S>> {
 public:
  using T = StateOf<S>;

  SourceGradients(const BackwardArgs& b, const PlaneInputs<S>& inputs, int64_t begin, int64_t end, int d)
      : b_(b),
        inputs_(inputs),
        begin_(begin),
        end_(end),
        d_(d),
        shared_(Slot::grad_source, Slot::grad_source_total, PlaneInputs<S>::kLines * inputs.stride) {}

  T* line(int64_t i) const { return shared_.lines + i * inputs_.stride; }

  void store(const Block& block, int64_t q) {
    const T* lines = shared_.add(enters_group(b_.source_size(), q, begin_), leaves_group(b_.source_size(), q, end_));
    if (!lines) return;
    S* plane = static_cast<S*>(b_.grad_source) + source_offset(b_, q, d_);
    scatter_lines(inputs_.sweep, block, lines, inputs_.stride, Assign<S, T>{plane, T(1)});
  }

 private:
  const BackwardArgs& b_;
  const PlaneInputs<S>& inputs_;
  int64_t begin_, end_;
  int d_;
  SharedGradient<T> shared_;
};

// Return sums over the lanes of a set. All lanes share the array that the vectors are the gradient of.
template <typename T>
T* sums_of_lanes(const T* vectors, int64_t positions, Slot slot) {
  T* lines = scratch<T>(slot, positions);
  sum_lanes(vectors, positions, lines);
  return lines;
}

template <typename S>
class GateGradients<S, SetInputs<S>> {
 public:
  using T = StateOf<S>;
  static constexpr int64_t kPlanes = SetInputs<S>::kPlanes;

  GateGradients(const BackwardArgs& b, const SetInputs<S>& inputs, int64_t begin, int64_t end, int d)
      : b_(b),
        inputs_(inputs),
        begin_(begin),
        end_(end),
        d_(d),
        size_(SetInputs<S>::kLines * inputs.stride),
        lines_(scratch<T>(Slot::grad_gates, 3 * size_)) {}

  bool adds(int64_t q) const { return inputs_.shares_gates() && q != begin_; }

  TapLines<T> line(const Block&, int64_t, int64_t i) const {
    T* line = lines_ + i * inputs_.stride;
    return {line, line + size_, line + 2 * size_};
  }

  void store(const Block& block, int64_t q) {
    if (inputs_.shares_gates()) return store_shared(block, q);
    for (int tap = 0; tap < 3; ++tap) {
      inputs_.put_sums(block, q, lines_ + tap * size_, b_.gate_size(), [&](int64_t p) { return plane(p, tap); });
    }
  }

 private:
  void store_shared(const Block& block, int64_t q) {
    if (q + kPlanes < end_) return;
    const int64_t positions = inputs_.sweep.positions, size = SetInputs<S>::kLines * positions;
    T* lines = sums_of_lanes(lines_, 3 * size, Slot::grad_gates_lines);
    inputs_.gates().adjoint(block, lines, positions, size);
    for (int tap = 0; tap < 3; ++tap) {
      scatter_lines(inputs_.sweep, block, lines + tap * size, positions, Assign<S, T>{plane(q, tap), T(1)});
    }
  }

  S* plane(int64_t q, int tap) const { return static_cast<S*>(b_.grad_gates) + gate_offset(b_, q, d_, tap); }

  const BackwardArgs& b_;
  const SetInputs<S>& inputs_;
  int64_t begin_, end_;
  int d_;
  int64_t size_;
  T* lines_;
};

template <typename S>
class SourceGradients<S, SetInputs<S>> {
 public:
  using T = StateOf<S>;
  static constexpr int64_t kPlanes = SetInputs<S>::kPlanes;

  SourceGradients(const BackwardArgs& b, const SetInputs<S>& inputs, int64_t begin, int64_t end, int d)
      : b_(b),
        inputs_(inputs),
        begin_(begin),
        end_(end),
        d_(d),
        shared_(Slot::grad_source, Slot::grad_source_total, SetInputs<S>::kLines * inputs.stride) {}

  T* line(int64_t i) const { return shared_.lines + i * inputs_.stride; }

  void store(const Block& block, int64_t q) {
    const auto plane = [&](int64_t p) { return static_cast<S*>(b_.grad_source) + source_offset(b_, p, d_); };
    const int64_t size = b_.source_size(), positions = inputs_.sweep.positions;
    if (size <= kPlanes) return inputs_.put_sums(block, q, shared_.lines, size, plane);
    const T* total = shared_.add(q == begin_, q + kPlanes >= end_);
    if (!total) return;
    const T* lines = sums_of_lanes(total, SetInputs<S>::kLines * positions, Slot::grad_source_lines);
    scatter_lines(inputs_.sweep, block, lines, positions, Assign<S, T>{plane(q), T(1)});
  }

 private:
  const BackwardArgs& b_;
  const SetInputs<S>& inputs_;
  int64_t begin_, end_;
  int d_;
  SharedGradient<T> shared_;
};

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
