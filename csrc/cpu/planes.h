// The inputs of one block of lines. The planes of a task are a range of the N C planes of x: plane q is channel q % C
// of sample q / C.
#pragma once

#include "access.h"
#include "interleave.h"
#include "line_kernels.h"
#include "lines.h"
#include "scratch.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

template <typename S>
using StateOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

// Lines as rows of contiguous values.
template <typename T>
struct LineBlock {
  const T* data;
  int64_t stride;

  const T* operator[](int64_t i) const { return data + i * stride; }
};

// Return the plane itself if its lines are rows in the dtype of the hidden state, else a copy in scratch.
template <typename S, typename T>
LineBlock<T> gather_plane(const S* plane, const Sweep& s, const Block& block, T* scratch) {
  if constexpr (std::is_same_v<S, T>) {
    if (s.position_stride == 1) return {plane + s.offset(block.first, 0), s.line_stride};
  }
  gather_lines(s, block, scratch, padded(s.positions), Read<S, T>{plane});
  return {scratch, padded(s.positions)};
}

// Offsets of the gates and the source of plane q in their arrays.
inline int64_t gate_offset(const Problem& problem, int64_t q, int d, int tap) {
  return problem.gate_plane(q / problem.channels, d, tap, q % problem.channels) * problem.plane();
}
inline int64_t source_offset(const Problem& problem, int64_t q, int d) {
  return problem.source_plane(q / problem.channels, d, q % problem.channels) * problem.plane();
}

// Return whether plane q is the first (or last) plane of its group within begin .. end - 1. A group is `size`
// consecutive planes that share gates or a source.
inline bool enters_group(int64_t size, int64_t q, int64_t begin) {
  return q == begin || q % size == 0;
}
inline bool leaves_group(int64_t size, int64_t q, int64_t end) {
  return q + 1 == end || (q + 1) % size == 0;
}

// The gates of a block, as lines. Gates that several planes share are gathered and normalised once for all planes.
template <typename S>
class BlockGates {
 public:
  using T = StateOf<S>;

  BlockGates(const Problem& problem, const void* gates, int d, int64_t lines, bool shared)
      : problem_(problem),
        gates_(static_cast<const S*>(gates)),
        d_(d),
        sweep_(problem.sweep(d)),
        size_(lines * padded(sweep_.positions)),
        normalizes_(shared && problem.normalize != Normalize::none),
        raw_scratch_(scratch<T>(Slot::gates, 3 * size_)),
        weights_scratch_(normalizes_ ? scratch<T>(Slot::weights, 3 * size_) : nullptr) {}

  // The normalisation that the steps still have to apply to the result of lines().
  Normalize still_to_do() const { return normalizes_ ? Normalize::none : problem_.normalize; }

  void gather(const Block& block, int64_t q) {
    for (int tap = 0; tap < 3; ++tap) {
      const S* plane = gates_ + gate_offset(problem_, q, d_, tap);
      raw_[tap] = gather_plane<S, T>(plane, sweep_, block, raw_scratch_ + tap * size_);
    }
    if (!normalizes_) return;
    const auto normalize = gate_kernels<T>(problem_.normalize).normalize;
    for (int64_t i = 0; i < block.count; ++i) normalize(raw(i), sweep_.positions, weights(i));
  }

  TapLines<const T> lines(int64_t i) const {
    if (!normalizes_) return raw(i);
    const TapLines<T> p = weights(i);
    return {p.minus, p.zero, p.plus};
  }

  // Convert dL/dp to dL/dg if the gates were normalised here. `gradient` consists of three arrays of lines, one per
  // tap.
  void adjoint(const Block& block, T* gradient, int64_t stride, int64_t tap_stride) const {
    if (!normalizes_) return;
    const auto adjoint = gate_kernels<T>(problem_.normalize).adjoint;
    for (int64_t i = 0; i < block.count; ++i) {
      // Without taps, the gradient stays zero for any gates.
      if (problem_.starts_at(block.first + i)) continue;
      T* line = gradient + i * stride;
      adjoint(raw(i), lines(i), sweep_.positions, {line, line + tap_stride, line + 2 * tap_stride});
    }
  }

 private:
  TapLines<const T> raw(int64_t i) const { return {raw_[0][i], raw_[1][i], raw_[2][i]}; }
  TapLines<T> weights(int64_t i) const {
    T* line = weights_scratch_ + i * padded(sweep_.positions);
    return {line, line + size_, line + 2 * size_};
  }

  const Problem& problem_;
  const S* gates_;
  int d_;
  Sweep sweep_;
  int64_t size_;
  bool normalizes_;
  T *raw_scratch_, *weights_scratch_;
  LineBlock<T> raw_[3];
};

// Inputs for one plane at a time, as lines of its positions.
template <typename S>
class PlaneInputs {
 public:
  using T = StateOf<S>;
  static constexpr int kApart = 1, kPlanes = 1;
  // Enough lines for the strip of a horizontal sweep to be at least one cache line wide.
  static constexpr int64_t kLines = std::max<int64_t>(64 / sizeof(S), kCheckpointLines);

  // Long columns do not stay in the first-level cache anyway. Wide strips then read longer runs of memory, at about one
  // and a half times the rate per core.
  static int64_t forward_lines(const Problem& problem, int d) {
    constexpr int64_t kLong = 128, kWideLines = 256 / sizeof(T);
    const Sweep s = problem.sweep(d);
    return s.position_stride != 1 && s.positions > kLong ? kWideLines : kLines;
  }

  // Convert the array x to the constructor's argument x. Null stays null.
  static const S* planes_of(const Problem&, const void* x, int64_t, int64_t) { return static_cast<const S*>(x); }

  PlaneInputs(const Problem& problem, const S* x, const void* gates, const void* source, int64_t begin, int64_t, int d,
              int64_t lines_ = kLines)
      : sweep(problem.sweep(d)),
        lines(lines_),
        stride(padded(sweep.positions)),
        problem_(problem),
        x_(x),
        source_(static_cast<const S*>(source)),
        begin_(begin),
        d_(d),
        gates_(problem, gates, d, lines, problem.gate_size() > 1),
        source_scratch_(scratch<T>(Slot::source, lines * stride)),
        x_scratch_(scratch<T>(Slot::input, lines * stride)) {}

  const Sweep sweep;
  const int64_t lines;   // maximum per block
  const int64_t stride;  // distance between lines in scratch

  const BlockGates<S>& gates() const { return gates_; }

  // Gates and source are gathered only if plane q enters a new group. If x is null it is not gathered, and its lines
  // must not be read.
  void gather(const Block& block, int64_t q) {
    if (enters_group(problem_.gate_size(), q, begin_)) gates_.gather(block, q);
    if (source_ && enters_group(problem_.source_size(), q, begin_)) {
      lambda_ = gather_plane<S, T>(source_ + source_offset(problem_, q, d_), sweep, block, source_scratch_);
    }
    if (x_) input_ = gather_plane<S, T>(x_ + q * problem_.plane(), sweep, block, x_scratch_);
  }

  // Gather the lines of plane q through access_of(q).
  template <typename AccessOf>
  void gather_by(const Block& block, int64_t q, AccessOf access_of, T* lines) const {
    gather_lines(sweep, block, lines, stride, access_of(q));
  }

  LineInputs<T> line(int64_t i, const T* previous) const {
    return {sweep.positions, gates_.lines(i),
            input_[i],       source_ ? lambda_[i] : nullptr,
            previous,        lines_lie_in_memory() ? kLinesAhead * sweep.line_stride : 0};
  }

  // Write the lines of a block to their pixels in the plane at plane_of(q).
  template <typename PlaneOf>
  void put(const Block& block, int64_t q, const T* lines, PlaneOf plane_of) const {
    using To = std::remove_pointer_t<decltype(plane_of(q))>;
    scatter_lines(sweep, block, lines, stride, Assign<To, T>{plane_of(q), T(1)});
  }

  void save_line(const T* line, int64_t, T* to, int64_t) const { std::copy_n(line, sweep.positions, to); }
  void load_line(const T* from, int64_t, int64_t, T* line) const { std::copy_n(from, sweep.positions, line); }

 private:
  bool lines_lie_in_memory() const {
    return std::is_same_v<S, T> && sweep.position_stride == 1 && gates_.still_to_do() == problem_.normalize;
  }

  const Problem& problem_;
  const S *x_, *source_;
  int64_t begin_;
  int d_;
  BlockGates<S> gates_;
  T *source_scratch_, *x_scratch_;
  LineBlock<T> lambda_{}, input_{};
};

// Number of sets of `lanes` planes that planes begin .. end - 1 fill. The last set may be partly filled.
inline int64_t count_sets(int64_t begin, int64_t end, int64_t lanes) {
  return (end - begin + lanes - 1) / lanes;
}

// Return the buffer for results in the precision of the hidden state: the result itself, or scratch if S is narrower.
template <typename S, typename T = StateOf<S>>
T* state_planes(S* result, int64_t values) {
  if constexpr (std::is_same_v<S, T>) {
    return result;
  } else {
    return scratch<T>(Slot::plane, values);
  }
}

// Interleave the planes of a task, one set of kPlanes after another.
template <typename S, typename T = StateOf<S>>
T* interleaved_planes(Slot slot, const Problem& problem, const S* planes, int64_t begin, int64_t end) {
  constexpr int64_t n = kLanes<T>;
  T* sets = scratch<T>(slot, count_sets(begin, end, n) * n * problem.plane());
  const Window whole = row_of(problem.plane());
  for (int64_t q = begin; q < end; q += n) {
    const int64_t count = std::min(n, end - q);
    const auto read = per_lane<T>([&](int64_t l) { return Read<S, T>{planes + (q + l) * problem.plane()}; });
    interleave<T>(whole, problem.plane(), read.lane, count, 0, sets + (q - begin) * problem.plane());
  }
  return sets;
}

// The inverse: set planes[q] = sets[...] for planes begin .. end - 1.
template <typename T, typename From, typename S>
void separate_planes(const Problem& problem, const From* sets, int64_t begin, int64_t end, S* planes) {
  constexpr int64_t n = kLanes<T>;
  const Window whole = row_of(problem.plane());
  for (int64_t q = begin; q < end; q += n) {
    const auto write = per_lane<T>([&](int64_t l) { return Assign<S, T>{planes + (q + l) * problem.plane(), T(1)}; });
    deinterleave<T>(whole, sets + (q - begin) * problem.plane(), std::min(n, end - q), 1, write.lane);
  }
}

// Inputs for kPlanes planes at a time, as lines of vectors. `x` holds the interleaved planes, one set after another.
template <typename S>
class SetInputs {
 public:
  using T = StateOf<S>;
  static constexpr int kApart = kLanes<T>, kPlanes = kLanes<T>;
  static constexpr int64_t kLines = kCheckpointLines;

  static int64_t forward_lines(const Problem&, int) { return kLines; }
  static const T* planes_of(const Problem& problem, const void* x, int64_t begin, int64_t end) {
    return x ? interleaved_planes<S>(Slot::input_sets, problem, static_cast<const S*>(x), begin, end) : nullptr;
  }

  SetInputs(const Problem& problem, const T* x, const void* gates, const void* source, int64_t begin, int64_t end,
            int d, int64_t lines_ = kLines)
      : sweep(problem.sweep(d)),
        lines(lines_),
        stride(sweep.positions * kPlanes),
        problem_(problem),
        x_(x),
        gates_(static_cast<const S*>(gates)),
        source_(static_cast<const S*>(source)),
        begin_(begin),
        end_(end),
        d_(d),
        size_(lines * stride),
        shares_(problem.gate_size() > kPlanes),
        shared_(problem, gates, d, shares_ ? lines : 0, shares_),
        gates_scratch_(scratch<T>(Slot::set_gates, 3 * size_)),
        source_scratch_(scratch<T>(Slot::source, size_)),
        x_scratch_(scratch<T>(Slot::input, size_)) {}

  const Sweep sweep;
  const int64_t lines, stride;

  const BlockGates<S>& gates() const { return shared_; }
  bool shares_gates() const { return shares_; }  // whether all sets and lanes of this task share gates
  int64_t count(int64_t q) const { return std::min<int64_t>(kPlanes, end_ - q); }

  void gather(const Block& block, int64_t q) {
    if (shares_) {
      if (q == begin_) gather_shared(block);
    } else {
      // Prefetch distances: from tap to tap, then to the first tap of the next block or direction.
      const int64_t tap_stride = problem_.gate_groups * problem_.plane(), next = block.first + block.next;
      const bool more = next >= 0 && next < sweep.lines;
      const int64_t back = more ? block.next * sweep.line_stride - 2 * tap_stride : tap_stride;
      for (int tap = 0; tap < 3; ++tap) {
        const auto access_of = [&](int64_t p) { return Read<S, T>{gates_ + gate_offset(problem_, p, d_, tap)}; };
        gather_by(block, q, access_of, gates_scratch_ + tap * size_, tap < 2 ? tap_stride : back);
      }
    }
    if (source_) {
      const auto access_of = [&](int64_t p) { return Read<S, T>{source_ + source_offset(problem_, p, d_)}; };
      gather_by(block, q, access_of, source_scratch_);
    }
    if (!x_) return;
    const T* plane = x_ + (q - begin_) * problem_.plane();
    if (sweep.position_stride == 1) {
      input_ = {plane + sweep.offset(block.first, 0) * kPlanes, sweep.line_stride * kPlanes};
    } else {
      gather_vectors(sweep, block, plane, x_scratch_);
      input_ = {x_scratch_, stride};
    }
  }

  template <typename AccessOf>
  void gather_by(const Block& block, int64_t q, AccessOf access_of, T* lines, int64_t ahead = 0) const {
    const int64_t last = q + count(q) - 1;
    const auto read = per_lane<T>([&](int64_t l) { return access_of(std::min(q + l, last)); });
    interleave<T>(window_of(sweep, block), problem_.plane(), read.lane, count(q), ahead, lines);
  }

  LineInputs<T> line(int64_t i, const T* previous) const {
    const T* gates = gates_scratch_ + i * stride;
    const T* lambda = source_ ? source_scratch_ + i * stride : nullptr;
    return {stride, {gates, gates + size_, gates + 2 * size_}, input_[i], lambda, previous, 0};
  }

  template <typename PlaneOf>
  void put(const Block& block, int64_t q, const T* lines, PlaneOf plane_of) const {
    put_sums(block, q, lines, 1, plane_of);
  }

  // Like put, but where `size` neighbouring planes share one, write their sum.
  template <typename PlaneOf>
  void put_sums(const Block& block, int64_t q, const T* lines, int64_t size, PlaneOf plane_of) const {
    using To = std::remove_pointer_t<decltype(plane_of(q))>;
    const int64_t last = q + count(q) - 1;
    const auto write = per_lane<T>([&](int64_t l) { return Assign<To, T>{plane_of(std::min(q + l, last)), T(1)}; });
    deinterleave<T>(window_of(sweep, block), lines, count(q), size, write.lane);
  }

  // Copy one line of every plane to or from an array in which planes lie `apart` values apart.
  void save_line(const T* line, int64_t q, T* to, int64_t apart) const {
    const auto write = per_lane<T>([&](int64_t l) { return Assign<T, T>{to + l * apart, T(1)}; });
    deinterleave<T>(row_of(sweep.positions), line, count(q), 1, write.lane);
  }
  void load_line(const T* from, int64_t q, int64_t apart, T* line) const {
    const auto read = per_lane<T>([&](int64_t l) { return Read<T, T>{from + l * apart}; });
    interleave<T>(row_of(sweep.positions), sweep.positions, read.lane, count(q), 0, line);
  }

 private:
  void gather_shared(const Block& block) {
    shared_.gather(block, begin_);
    for (int64_t i = 0; i < block.count; ++i) {
      const TapLines<const T> from = shared_.lines(i);
      T* to = gates_scratch_ + i * stride;
      spread(from.minus, sweep.positions, to);
      spread(from.zero, sweep.positions, to + size_);
      spread(from.plus, sweep.positions, to + 2 * size_);
    }
  }

  const Problem& problem_;
  const T* x_;
  const S *gates_, *source_;
  int64_t begin_, end_;
  int d_;
  int64_t size_;
  bool shares_;
  BlockGates<S> shared_;
  T *gates_scratch_, *source_scratch_, *x_scratch_;
  LineBlock<T> input_{};
};

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
