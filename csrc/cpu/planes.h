// A task's view of the arrays: blocks of lines of a plane, and the gates and source that several channels share.
#pragma once

#include "access.h"
#include "line_kernels.h"
#include "lines.h"
#include "scratch.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

template <typename S>
using StateOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

// Lines that the forward pass works on together: as many as make a horizontal sweep's strip a cache line wide.
template <typename S>
constexpr int64_t kBlockLines = std::max<int64_t>(64 / sizeof(S), kCheckpointLines);

// A block's lines as rows of contiguous positions.
template <typename T>
struct LineBlock {
  const T* data;
  int64_t stride;

  const T* operator[](int64_t i) const { return data + i * stride; }
};

// The plane itself where its lines are rows of the state's dtype already, else a copy in scratch.
template <typename S, typename T>
LineBlock<T> gather_plane(const S* plane, const Sweep& s, const Block& block, T* scratch) {
  if constexpr (std::is_same_v<S, T>) {
    if (s.position_stride == 1) return {plane + s.offset(block.first, 0), s.line_stride};
  }
  gather_lines(s, block, scratch, padded(s.positions), Read<S, T>{plane});
  return {scratch, padded(s.positions)};
}

// True where channel c starts a new run of channels that share one of `groups` planes, or the task starts.
inline bool enters_group(const Problem& problem, int64_t groups, int64_t c, int64_t first) {
  return groups && (c == first || c % (problem.channels / groups) == 0);
}

inline bool leaves_group(const Problem& problem, int64_t groups, int64_t c, int64_t end) {
  return groups && (c + 1 == end || (c + 1) % (problem.channels / groups) == 0);
}

// What one block of sweep d of sample n reads, for one channel after the other.
template <typename S>
class BlockInputs {
 public:
  using T = StateOf<S>;

  BlockInputs(const Problem& problem, const void* x, const void* gates, const void* source, int64_t n, int d,
              int64_t lines)
      : problem_(problem),
        x_(static_cast<const S*>(x)),
        gates_(static_cast<const S*>(gates)),
        source_(static_cast<const S*>(source)),
        n_(n),
        d_(d),
        sweep_(problem.sweep(d)),
        size_(lines * padded(sweep_.positions)),
        gates_scratch_(scratch<T>(Slot::gates, 3 * size_)),
        source_scratch_(scratch<T>(Slot::source, size_)),
        x_scratch_(scratch<T>(Slot::input, size_)) {}

  // Gates and source are gathered only where channel c enters another group than the channel before it. A null x is
  // not gathered, and its lines are not to be read.
  void gather(const Block& block, int64_t c, bool new_gates, bool new_source) {
    if (new_gates) {
      for (int tap = 0; tap < 3; ++tap) {
        const S* plane = gates_ + problem_.gate_plane(n_, d_, tap, c) * problem_.plane();
        taps_[tap] = gather_plane<S, T>(plane, sweep_, block, gates_scratch_ + tap * size_);
      }
    }
    if (new_source) {
      const S* plane = source_ + problem_.source_plane(n_, d_, c) * problem_.plane();
      lambda_ = gather_plane<S, T>(plane, sweep_, block, source_scratch_);
    }
    if (!x_) return;
    const S* plane = x_ + (n_ * problem_.channels + c) * problem_.plane();
    input_ = gather_plane<S, T>(plane, sweep_, block, x_scratch_);
  }

  LineInputs<T> line(int64_t i, const T* previous) const {
    return {sweep_.positions, {taps_[0][i], taps_[1][i], taps_[2][i]},
            input_[i],        source_ ? lambda_[i] : nullptr,
            previous,         lines_lie_in_memory() ? kLinesAhead * sweep_.line_stride : 0};
  }

 private:
  bool lines_lie_in_memory() const { return std::is_same_v<S, T> && sweep_.position_stride == 1; }

  const Problem& problem_;
  const S *x_, *gates_, *source_;
  int64_t n_;
  int d_;
  Sweep sweep_;
  int64_t size_;
  T *gates_scratch_, *source_scratch_, *x_scratch_;
  LineBlock<T> taps_[3], lambda_, input_{};
};

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
