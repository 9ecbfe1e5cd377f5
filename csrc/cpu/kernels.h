// The forward and backward pass over whole planes. Compiled once for each instruction set: see capability.h.
//
// A task owns some channels of one sample. It walks each sweep in blocks of kCheckpointLines lines: gather the block's
// gates and input so that positions are contiguous, step through the lines, scatter the result to where it belongs.
// Gates that several channels share are gathered once for all of them.
//
// Where there are fewer tasks than threads, every sweep becomes a task of its own with a plane of its own, and the
// planes are merged afterwards in the order of the directions: results do not depend on the number of threads.
#pragma once

#include "../problem.h"
#include "line_kernels.h"
#include "lines.h"
#include "scratch.h"
#include "tasks.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

template <typename S>
using StateOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

constexpr int64_t kPadding = 16;  // keeps lines of a power of two apart in the cache, and room for a vector's tail

inline int64_t padded(int64_t positions) { return (positions + kPadding - 1) / kPadding * kPadding + kPadding; }

// ---- What happens to a value on its way between a plane and a line ------------------------------------------------

template <typename S, typename T>
struct Read {
  const S* plane;
  SPN_HD T operator()(int64_t o) const { return static_cast<T>(plane[o]); }
};

template <typename S, typename T>
struct ReadScaled {
  const S* plane;
  T scale;
  SPN_HD T operator()(int64_t o) const { return static_cast<T>(plane[o]) * scale; }
};

// The gradient of a maximum goes to the direction that won.
template <typename S, typename T>
struct ReadWhereWinner {
  const S* plane;
  const uint8_t* winner;
  uint8_t direction;
  SPN_HD T operator()(int64_t o) const { return winner[o] == direction ? static_cast<T>(plane[o]) : T(0); }
};

template <typename S, typename T>
struct Assign {
  S* plane;
  T scale;
  SPN_HD void operator()(int64_t o, T value) const { plane[o] = static_cast<S>(value * scale); }
};

template <typename T>
struct Add {
  T* plane;
  T scale;
  SPN_HD void operator()(int64_t o, T value) const { plane[o] += value * scale; }
};

// A later direction wins only if it is larger: a tie stays with the first. NaN beats every number, as in torch.max.
template <typename T>
SPN_HD bool beats(T value, T best) {
  return value > best || (value != value && best == best);
}

template <typename T>
struct Maximum {
  T* plane;
  SPN_HD void operator()(int64_t o, T value) const { plane[o] = beats(value, plane[o]) ? value : plane[o]; }
};

template <typename T>
struct MaximumWithWinner {
  T* plane;
  uint8_t* winner;
  uint8_t direction;
  SPN_HD void operator()(int64_t o, T value) const {
    const bool take = beats(value, plane[o]);
    plane[o] = take ? value : plane[o];
    winner[o] = take ? direction : winner[o];
  }
};

template <typename T>
T merge_scale(const Problem& problem) {
  return problem.merge == Merge::mean ? T(1) / T(problem.directions) : T(1);
}

// Hands `visit` the operation that merges sweep d into `plane`; the first sweep to arrive finds the plane unwritten.
template <typename T, typename Visit>
SPN_HD void with_merge(const Problem& problem, int d, T* plane, uint8_t* winner, Visit visit) {
  if (d == 0) {
    visit(Assign<T, T>{plane, merge_scale<T>(problem)});
  } else if (problem.merge != Merge::max) {
    visit(Add<T>{plane, merge_scale<T>(problem)});
  } else if (winner) {
    visit(MaximumWithWinner<T>{plane, winner, static_cast<uint8_t>(d)});
  } else {
    visit(Maximum<T>{plane});
  }
}

// Lines t0 .. t0 + count - 1 as rows of contiguous positions: the plane itself where it is so already.
template <typename S, typename T>
struct LineBlock {
  const T* first;
  int64_t stride;
  const T* operator[](int64_t i) const { return first + i * stride; }
};

template <typename S, typename T>
LineBlock<S, T> gather_plane(const S* plane, const Sweep& s, int64_t t0, int64_t count, T* scratch) {
  if constexpr (std::is_same_v<S, T>) {
    if (s.position_stride == 1) return {plane + s.offset(t0, 0), s.line_stride};
  }
  gather_lines(s, t0, count, scratch, padded(s.positions), Read<S, T>{plane});
  return {scratch, padded(s.positions)};
}

// The three gates of one group and the source of one source group, gathered when the channel enters another group.
template <typename S, typename T>
struct SharedLines {
  LineBlock<S, T> minus, zero, plus, lambda;

  void gather_gates(const Problem& problem, const void* gates, int64_t n, int d, int64_t c, const Sweep& s, int64_t t0,
                    int64_t count, T* scratch) {
    const int64_t block = kCheckpointLines * padded(s.positions);
    const S* base = static_cast<const S*>(gates);
    const auto plane = [&](int tap) { return base + problem.gate_plane(n, d, tap, c) * problem.plane(); };
    minus = gather_plane<S, T>(plane(0), s, t0, count, scratch);
    zero = gather_plane<S, T>(plane(1), s, t0, count, scratch + block);
    plus = gather_plane<S, T>(plane(2), s, t0, count, scratch + 2 * block);
  }
  void gather_source(const Problem& problem, const void* source, int64_t n, int d, int64_t c, const Sweep& s,
                     int64_t t0, int64_t count, T* scratch) {
    const S* plane = static_cast<const S*>(source) + problem.source_plane(n, d, c) * problem.plane();
    lambda = gather_plane<S, T>(plane, s, t0, count, scratch);
  }
  LineInputs<T> inputs(const Problem& problem, int64_t positions, int64_t i, const T* x, const T* previous) const {
    return {positions, {minus[i], zero[i], plus[i]}, x, problem.source_groups ? lambda[i] : nullptr, previous};
  }
};

// True where channel c starts a new run of channels that share one of `groups` planes, or the task starts.
inline bool enters_group(const Problem& problem, int64_t groups, int64_t c, int64_t first) {
  return groups && (c == first || c % (problem.channels / groups) == 0);
}

inline bool leaves_group(const Problem& problem, int64_t groups, int64_t c, int64_t end) {
  return groups && (c + 1 == end || (c + 1) % (problem.channels / groups) == 0);
}

// ---- Forward ------------------------------------------------------------------------------------------------------

// Sweep d over channels c0 .. c1 - 1; `store(c, s, t0, count, lines, stride)` takes each finished block.
template <typename S, typename Store>
void forward_sweep(const ForwardArgs& f, int64_t n, int64_t c0, int64_t c1, int d, Store store) {
  using T = StateOf<S>;
  const LineKernels<T> kernels = line_kernels<T>(f.normalize, f.source != nullptr);
  const Sweep s = f.sweep(d);
  const int64_t stride = padded(s.positions), block = kCheckpointLines * stride;
  T* gates = scratch<T>(Slot::gates, 3 * block);
  T* lambdas = scratch<T>(Slot::source, block);
  T* inputs = scratch<T>(Slot::input, block);
  T* hidden = scratch<T>(Slot::hidden, block);
  T* carries = scratch<T>(Slot::carry, (c1 - c0) * stride);
  const int64_t checkpoint_stride = f.checkpoint_offset(f.directions);
  SharedLines<S, T> shared;

  for (int64_t t0 = 0; t0 < s.lines; t0 += kCheckpointLines) {
    const int64_t count = std::min(kCheckpointLines, s.lines - t0);
    for (int64_t c = c0; c < c1; ++c) {
      if (enters_group(f, f.gate_groups, c, c0)) shared.gather_gates(f, f.gates, n, d, c, s, t0, count, gates);
      if (enters_group(f, f.source_groups, c, c0)) shared.gather_source(f, f.source, n, d, c, s, t0, count, lambdas);
      const S* x_plane = static_cast<const S*>(f.x) + (n * f.channels + c) * f.plane();
      const LineBlock<S, T> x = gather_plane<S, T>(x_plane, s, t0, count, inputs);

      T* carry = carries + (c - c0) * stride;
      const T* previous = t0 == 0 ? nullptr : carry;
      for (int64_t i = 0; i < count; ++i) {
        kernels.forward(shared.inputs(f, s.positions, i, x[i], previous), hidden + i * stride);
        previous = hidden + i * stride;
      }
      std::copy_n(previous, s.positions, carry);
      if (f.checkpoints && t0 + count < s.lines) {
        T* saved = static_cast<T*>(f.checkpoints) + (n * f.channels + c) * checkpoint_stride;
        std::copy_n(carry, s.positions, saved + f.checkpoint_offset(d) + t0 / kCheckpointLines * s.positions);
      }
      store(c, s, t0, count, hidden, stride);
    }
  }
}

template <typename S>
void forward_unmerged(const ForwardArgs& f, int64_t task, const ChannelTasks& tasks) {
  using T = StateOf<S>;
  int64_t n, c0, c1;
  tasks.range(f, task / f.directions, n, c0, c1);
  const int d = static_cast<int>(task % f.directions);
  S* planes = static_cast<S*>(f.out) + (n * f.directions + d) * f.channels * f.plane();
  forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, int64_t t0, int64_t count, const T* h, int64_t stride) {
    scatter_lines(s, t0, count, h, stride, Assign<S, T>{planes + c * f.plane(), T(1)});
  });
}

template <typename S>
void forward_merged(const ForwardArgs& f, int64_t task, const ChannelTasks& tasks) {
  using T = StateOf<S>;
  int64_t n, c0, c1;
  tasks.range(f, task, n, c0, c1);
  const int64_t plane = f.plane(), offset = (n * f.channels + c0) * plane;
  S* out = static_cast<S*>(f.out) + offset;
  uint8_t* winner = f.winner ? f.winner + offset : nullptr;
  if (winner) std::fill_n(winner, (c1 - c0) * plane, uint8_t{0});
  // Narrow dtypes merge in the state's precision and are rounded once, at the end.
  T* merged;
  if constexpr (std::is_same_v<S, T>) {
    merged = out;
  } else {
    merged = scratch<T>(Slot::plane, (c1 - c0) * plane);
  }
  for (int d = 0; d < f.directions; ++d) {
    forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, int64_t t0, int64_t count, const T* h, int64_t stride) {
      const int64_t o = (c - c0) * plane;
      with_merge(f, d, merged + o, winner ? winner + o : nullptr,
                 [&](auto write) { scatter_lines(s, t0, count, h, stride, write); });
    });
  }
  if constexpr (!std::is_same_v<S, T>) {
    for (int64_t o = 0; o < (c1 - c0) * plane; ++o) out[o] = static_cast<S>(merged[o]);
    release_large_scratch();
  }
}

// One sweep into a plane of its own: `separate` is (D, N, C, H, W) in the state's dtype.
template <typename S>
void forward_separate(const ForwardArgs& f, int64_t task, const ChannelTasks& tasks, void* separate) {
  using T = StateOf<S>;
  int64_t n, c0, c1;
  tasks.range(f, task / f.directions, n, c0, c1);
  const int d = static_cast<int>(task % f.directions);
  T* planes = static_cast<T*>(separate) + (d * f.batch + n) * f.channels * f.plane();
  forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, int64_t t0, int64_t count, const T* h, int64_t stride) {
    scatter_lines(s, t0, count, h, stride, Assign<T, T>{planes + c * f.plane(), T(1)});
  });
}

// Values begin .. end - 1 of the merged map, from the sweeps' separate planes, in the order of the directions.
template <typename S>
void merge_separate(const ForwardArgs& f, const void* separate, int64_t begin, int64_t end) {
  using T = StateOf<S>;
  const int64_t size = f.batch * f.channels * f.plane();
  const T* planes = static_cast<const T*>(separate);
  S* out = static_cast<S*>(f.out);
  for (int64_t o = begin; o < end; ++o) {
    T merged{};
    uint8_t winner{};
    for (int d = 0; d < f.directions; ++d) {
      with_merge(f, d, &merged, &winner, [&](auto write) { write(0, planes[d * size + o]); });
    }
    out[o] = static_cast<S>(merged);
    if (f.winner) f.winner[o] = winner;
  }
}

// ---- Backward -----------------------------------------------------------------------------------------------------

// dL/dh of sweep d, for the block's lines.
template <typename S, typename T>
void gather_grad(const BackwardArgs& b, int64_t n, int64_t c, int d, const Sweep& s, int64_t t0, int64_t count, T* lines,
                 int64_t stride) {
  const S* grad = static_cast<const S*>(b.grad);
  if (b.merge == Merge::none) {
    grad += ((n * b.directions + d) * b.channels + c) * b.plane();
    gather_lines(s, t0, count, lines, stride, Read<S, T>{grad});
    return;
  }
  const int64_t offset = (n * b.channels + c) * b.plane();
  if (b.merge == Merge::max) {
    gather_lines(s, t0, count, lines, stride,
                 ReadWhereWinner<S, T>{grad + offset, b.winner + offset, static_cast<uint8_t>(d)});
  } else {
    gather_lines(s, t0, count, lines, stride, ReadScaled<S, T>{grad + offset, merge_scale<T>(b)});
  }
}

// The adjoint of sweep d over channels c0 .. c1 - 1, from its last block to its first; `store(c, ...)` takes grad_x.
template <typename S, typename Store>
void backward_sweep(const BackwardArgs& b, int64_t n, int64_t c0, int64_t c1, int d, Store store) {
  using T = StateOf<S>;
  const LineKernels<T> kernels = line_kernels<T>(b.normalize, b.source != nullptr);
  const Sweep s = b.sweep(d);
  const int64_t stride = padded(s.positions), block = kCheckpointLines * stride;
  T* gates = scratch<T>(Slot::gates, 3 * block);
  T* lambdas = scratch<T>(Slot::source, block);
  T* inputs = scratch<T>(Slot::input, block);
  T* hidden = scratch<T>(Slot::hidden, block);
  T* grads = scratch<T>(Slot::grad, block);
  T* grads_x = scratch<T>(Slot::grad_x, block);
  T* grads_gates = scratch<T>(Slot::grad_gates, 3 * block);
  T* grads_lambda = scratch<T>(Slot::grad_source, block);
  T* sent = scratch<T>(Slot::sent, 3 * (s.positions + 2));
  T* carries = scratch<T>(Slot::carry, (c1 - c0) * stride);
  std::fill_n(sent, 3 * (s.positions + 2), T(0));
  std::fill_n(carries, (c1 - c0) * stride, T(0));
  const int64_t checkpoint_stride = b.checkpoint_offset(b.directions);
  SharedLines<S, T> shared;

  for (int64_t t0 = (block_count(s.lines) - 1) * kCheckpointLines; t0 >= 0; t0 -= kCheckpointLines) {
    const int64_t count = std::min(kCheckpointLines, s.lines - t0);
    for (int64_t c = c0; c < c1; ++c) {
      const bool new_gates = enters_group(b, b.gate_groups, c, c0);
      const bool new_source = enters_group(b, b.source_groups, c, c0);
      if (new_gates) shared.gather_gates(b, b.gates, n, d, c, s, t0, count, gates);
      if (new_source) shared.gather_source(b, b.source, n, d, c, s, t0, count, lambdas);
      const S* x_plane = static_cast<const S*>(b.x) + (n * b.channels + c) * b.plane();
      const LineBlock<S, T> x = gather_plane<S, T>(x_plane, s, t0, count, inputs);
      gather_grad<S, T>(b, n, c, d, s, t0, count, grads, stride);

      // Line i of the block needs h of the line before it: the checkpoint, then the lines recomputed from it.
      const T* saved = static_cast<const T*>(b.checkpoints) + (n * b.channels + c) * checkpoint_stride;
      const T* entering =
          t0 == 0 ? nullptr : saved + b.checkpoint_offset(d) + (t0 / kCheckpointLines - 1) * s.positions;
      const auto previous = [&](int64_t i) { return i == 0 ? entering : hidden + (i - 1) * stride; };
      for (int64_t i = 0; i + 1 < count; ++i) {
        kernels.forward(shared.inputs(b, s.positions, i, x[i], previous(i)), hidden + i * stride);
      }
      const auto backward = new_gates ? kernels.backward : kernels.backward_accumulate;
      for (int64_t i = count - 1; i >= 0; --i) {
        T* dg = grads_gates + i * stride;
        const LineGradients<T> out{grads_x + i * stride, {dg, dg + block, dg + 2 * block}, grads_lambda + i * stride,
                                   !new_source};
        backward(shared.inputs(b, s.positions, i, x[i], previous(i)), grads + i * stride, carries + (c - c0) * stride,
                 sent, out);
      }

      store(c, s, t0, count, grads_x, stride);
      if (leaves_group(b, b.gate_groups, c, c1)) {
        for (int tap = 0; tap < 3; ++tap) {
          S* plane = static_cast<S*>(b.grad_gates) + b.gate_plane(n, d, tap, c) * b.plane();
          scatter_lines(s, t0, count, grads_gates + tap * block, stride, Assign<S, T>{plane, T(1)});
        }
      }
      if (leaves_group(b, b.source_groups, c, c1)) {
        S* plane = static_cast<S*>(b.grad_source) + b.source_plane(n, d, c) * b.plane();
        scatter_lines(s, t0, count, grads_lambda, stride, Assign<S, T>{plane, T(1)});
      }
    }
  }
}

template <typename S>
void backward_merged(const BackwardArgs& b, int64_t task, const GroupTasks& tasks) {
  using T = StateOf<S>;
  int64_t n, c0, c1;
  tasks.range(task, n, c0, c1);
  const int64_t plane = b.plane();
  S* grad_x = static_cast<S*>(b.grad_x) + (n * b.channels + c0) * plane;
  T* total;
  if constexpr (std::is_same_v<S, T>) {
    total = grad_x;
  } else {
    total = scratch<T>(Slot::plane, tasks.size * plane);
  }
  for (int d = 0; d < b.directions; ++d) {
    backward_sweep<S>(b, n, c0, c1, d, [&](int64_t c, const Sweep& s, int64_t t0, int64_t count, const T* lines, int64_t stride) {
      T* target = total + (c - c0) * plane;
      if (d == 0) {
        scatter_lines(s, t0, count, lines, stride, Assign<T, T>{target, T(1)});
      } else {
        scatter_lines(s, t0, count, lines, stride, Add<T>{target, T(1)});
      }
    });
  }
  if constexpr (!std::is_same_v<S, T>) {
    for (int64_t o = 0; o < tasks.size * plane; ++o) grad_x[o] = static_cast<S>(total[o]);
    release_large_scratch();
  }
}

template <typename S>
void backward_separate(const BackwardArgs& b, int64_t task, const GroupTasks& tasks, void* separate) {
  using T = StateOf<S>;
  const int d = static_cast<int>(task % b.directions);
  int64_t n, c0, c1;
  tasks.range(task / b.directions, n, c0, c1);
  T* planes = static_cast<T*>(separate) + (d * b.batch + n) * b.channels * b.plane();
  backward_sweep<S>(b, n, c0, c1, d,
                    [&](int64_t c, const Sweep& s, int64_t t0, int64_t count, const T* lines, int64_t stride) {
                      scatter_lines(s, t0, count, lines, stride, Assign<T, T>{planes + c * b.plane(), T(1)});
                    });
}

template <typename S>
void add_separate(const BackwardArgs& b, const void* separate, int64_t begin, int64_t end) {
  using T = StateOf<S>;
  const int64_t size = b.batch * b.channels * b.plane();
  const T* planes = static_cast<const T*>(separate);
  S* grad_x = static_cast<S*>(b.grad_x);
  for (int64_t o = begin; o < end; ++o) {
    T total = planes[o];
    for (int d = 1; d < b.directions; ++d) total += planes[d * size + o];
    grad_x[o] = static_cast<S>(total);
  }
}

// ---- Whole passes -------------------------------------------------------------------------------------------------

constexpr int64_t kMergeGrain = 1 << 14;

template <typename Body>
void for_tasks(int64_t count, Body body) {
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task);
  });
}

template <typename S>
void forward(const ForwardArgs& f, void* separate) {
  const ChannelTasks tasks(f);
  if (f.merge == Merge::none) {
    for_tasks(tasks.count * f.directions, [&](int64_t task) { forward_unmerged<S>(f, task, tasks); });
  } else if (!separate) {
    for_tasks(tasks.count, [&](int64_t task) { forward_merged<S>(f, task, tasks); });
  } else {
    for_tasks(tasks.count * f.directions, [&](int64_t task) { forward_separate<S>(f, task, tasks, separate); });
    parallel_for(f.batch * f.channels * f.plane(), kMergeGrain,
                 [&](int64_t begin, int64_t end) { merge_separate<S>(f, separate, begin, end); });
  }
}

template <typename S>
void backward(const BackwardArgs& b, void* separate) {
  const GroupTasks tasks(b);
  if (!separate) {
    for_tasks(tasks.count, [&](int64_t task) { backward_merged<S>(b, task, tasks); });
  } else {
    for_tasks(tasks.count * b.directions, [&](int64_t task) { backward_separate<S>(b, task, tasks, separate); });
    parallel_for(b.batch * b.channels * b.plane(), kMergeGrain,
                 [&](int64_t begin, int64_t end) { add_separate<S>(b, separate, begin, end); });
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
