// The backward pass over whole planes: every sweep's blocks from the last to the first, each recomputed from its
// checkpoint. Tasks and the choice of separate planes are those of forward.h, but a task owns whole groups of channels,
// because gradients of shared gates add up over them. A gradient that is not wanted costs nothing; where that is the
// gates', the hidden lines need not be recomputed.
#pragma once

#include "planes.h"
#include "tasks.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// dL/dh of sweep d, for the block's lines.
template <typename S, typename T>
void gather_grad(const BackwardArgs& b, int64_t n, int64_t c, int d, const Sweep& s, const Block& block, T* lines,
                 int64_t stride) {
  const S* grad = static_cast<const S*>(b.grad);
  const int64_t offset = (n * b.channels + c) * b.plane();
  if (b.merge == Merge::none) {
    grad += ((n * b.directions + d) * b.channels + c) * b.plane();
    gather_lines(s, block, lines, stride, Read<S, T>{grad});
  } else if (b.merge == Merge::max) {
    gather_lines(s, block, lines, stride,
                 ReadWhereWinner<S, T>{grad + offset, b.winner + offset, static_cast<int8_t>(d)});
  } else {
    gather_lines(s, block, lines, stride, ReadScaled<S, T>{grad + offset, merge_scale<T>(b)});
  }
}

// Gradient lines of something that several channels in a row share, and their sum over these channels.
template <typename T>
struct SharedGradient {
  T* lines;  // of the channel at hand

  SharedGradient(Slot slot, Slot total, int64_t size)
      : lines(scratch<T>(slot, size)), total_slot_(total), size_(size) {}

  // Takes the channel's lines in; the group's sum once its last channel is in, null before.
  const T* add(bool first, bool last) {
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

// Whether the gates' gradients are better written past the caches: they are most of what this pass writes.
template <typename S>
bool streams_gate_gradients(const BackwardArgs& b) {
  constexpr int64_t kLargest = int64_t{16} << 20;  // bytes that may well stay in the caches
  const int64_t planes = b.batch * b.directions * 3 * b.gate_groups;
  const bool whole_lines =
      b.width % kLanes<S> == 0 && reinterpret_cast<uintptr_t>(b.grad_gates) % SPN_VECTOR_BYTES == 0;
  return kStreams && b.grad_gates && std::is_same_v<S, StateOf<S>> && whole_lines &&
         planes * b.plane() * static_cast<int64_t>(sizeof(S)) > kLargest;
}

// The adjoint of sweep d over channels c0 .. c1 - 1; `store(c, sweep, block, lines, stride)` takes grad_x.
template <typename S, typename Store>
void backward_sweep(const BackwardArgs& b, int64_t n, int64_t c0, int64_t c1, int d, Store store) {
  using T = StateOf<S>;
  const Beside beside = b.grad_gates ? Beside::all : b.grad_source ? Beside::lambda : Beside::nothing;
  const LineKernels<T> kernels = line_kernels<T>(b.normalize, b.source != nullptr, beside);
  const Sweep s = b.sweep(d);
  constexpr int64_t lines = kBlockLines<S>;
  const int64_t stride = padded(s.positions), size = lines * stride;
  T* hidden = scratch<T>(Slot::hidden, size);
  T* grads = scratch<T>(Slot::grad, size);
  T* grads_x = scratch<T>(Slot::grad_x, size);
  SharedGradient<T> grad_gates(Slot::grad_gates, Slot::grad_gates_total, 3 * size);
  SharedGradient<T> grad_lambda(Slot::grad_source, Slot::grad_source_total, size);
  T* entering = scratch<T>(Slot::entering, s.positions);
  T* sent = scratch<T>(Slot::sent, 3 * sent_stride(s.positions));
  T* carries = scratch<T>(Slot::carry, (c1 - c0) * stride);
  std::fill_n(sent, 3 * sent_stride(s.positions), T(0));
  std::fill_n(carries, (c1 - c0) * stride, T(0));
  const int64_t checkpoint_stride = b.checkpoint_offset(b.directions);
  BlockInputs<S> inputs(b, b.reads_x() ? b.x : nullptr, b.gates, b.source, n, d, lines);
  const auto gate_plane = [&](int64_t c, int tap) {
    return static_cast<S*>(b.grad_gates) + b.gate_plane(n, d, tap, c) * b.plane();
  };
  const bool streams = streams_gate_gradients<S>(b);
  // A gate gradient that no other channel adds to goes where it belongs at once, if that is laid out like a line.
  const bool direct =
      b.grad_gates && !streams && std::is_same_v<S, T> && s.position_stride == 1 && b.gate_groups == b.channels;

  for (int64_t t0 = (s.lines - 1) / lines * lines; t0 >= 0; t0 -= lines) {
    const Block block{t0, std::min(lines, s.lines - t0), -lines};
    for (int64_t c = c0; c < c1; ++c) {
      const bool new_gates = enters_group(b, b.gate_groups, c, c0);
      const bool new_source = enters_group(b, b.source_groups, c, c0);
      inputs.gather(block, c, new_gates, new_source);
      gather_grad<S, T>(b, n, c, d, s, block, grads, stride);

      // Line i needs h of the line before it: the checkpoint, then the lines recomputed from it.
      if (t0 > 0 && b.reads_hidden()) {
        const T* saved = static_cast<const T*>(b.checkpoints) + (n * b.channels + c) * checkpoint_stride;
        std::copy_n(saved + b.checkpoint_offset(d) + (t0 / kCheckpointLines - 1) * s.positions, s.positions, entering);
      }
      const auto previous = [&](int64_t i) -> const T* {
        return i > 0 ? hidden + (i - 1) * stride : (t0 > 0 ? entering : nullptr);
      };
      for (int64_t i = 0; b.reads_hidden() && i + 1 < block.count; ++i) {
        kernels.forward(inputs.line(i, previous(i)), hidden + i * stride);
      }
      for (int64_t i = block.count - 1; i >= 0; --i) {
        const auto gate_line = [&](int tap) {
          return direct ? reinterpret_cast<T*>(gate_plane(c, tap) + s.offset(t0 + i, 0))
                        : grad_gates.lines + tap * size + i * stride;
        };
        const LineGradients<T> out{
            grads_x + i * stride, {gate_line(0), gate_line(1), gate_line(2)}, grad_lambda.lines + i * stride};
        kernels.backward(inputs.line(i, previous(i)), grads + i * stride, carries + (c - c0) * stride, sent + kPadding,
                         out);
      }

      if (b.grad_x) store(c, s, block, grads_x, stride);
      const T* gate_lines = nullptr;
      if (b.grad_gates && !direct) gate_lines = grad_gates.add(new_gates, leaves_group(b, b.gate_groups, c, c1));
      for (int tap = 0; gate_lines && tap < 3; ++tap) {
        if (streams) {
          scatter_lines(s, block, gate_lines + tap * size, stride, Stream<T>{reinterpret_cast<T*>(gate_plane(c, tap))});
        } else {
          scatter_lines(s, block, gate_lines + tap * size, stride, Assign<S, T>{gate_plane(c, tap), T(1)});
        }
      }
      if (streams) finish_streams();
      if (!b.grad_source) continue;
      if (const T* lines = grad_lambda.add(new_source, leaves_group(b, b.source_groups, c, c1))) {
        S* plane = static_cast<S*>(b.grad_source) + b.source_plane(n, d, c) * b.plane();
        scatter_lines(s, block, lines, stride, Assign<S, T>{plane, T(1)});
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
    backward_sweep<S>(b, n, c0, c1, d,
                      [&](int64_t c, const Sweep& s, const Block& block, const T* lines, int64_t stride) {
                        T* target = total + (c - c0) * plane;
                        if (d == 0) {
                          scatter_lines(s, block, lines, stride, Assign<T, T>{target, T(1)});
                        } else {
                          scatter_lines(s, block, lines, stride, Add<T>{target, T(1)});
                        }
                      });
  }
  if constexpr (!std::is_same_v<S, T>) {
    round_values(total, tasks.size * plane, grad_x);
    release_large_scratch();
  }
}

// One sweep by itself: its share of grad_x, if that is wanted, into a plane of its own.
template <typename S>
void backward_separate(const BackwardArgs& b, int64_t task, const GroupTasks& tasks, void* separate) {
  using T = StateOf<S>;
  const int d = direction_of_task(task % b.directions);
  int64_t n, c0, c1;
  tasks.range(task / b.directions, n, c0, c1);
  const int64_t first = (d * b.batch + n) * b.channels;
  backward_sweep<S>(b, n, c0, c1, d,
                    [&](int64_t c, const Sweep& s, const Block& block, const T* lines, int64_t stride) {
                      T* plane = static_cast<T*>(separate) + (first + c) * b.plane();
                      scatter_lines(s, block, lines, stride, Assign<T, T>{plane, T(1)});
                    });
}

// Values begin .. end - 1 of grad_x, from the sweeps' separate planes, in the order of the directions.
template <typename S>
void add_separate(const BackwardArgs& b, const void* separate, int64_t begin, int64_t end) {
  using T = StateOf<S>;
  const int64_t size = b.batch * b.channels * b.plane();
  const T* planes = static_cast<const T*>(separate);
  S* grad_x = static_cast<S*>(b.grad_x);
  for (int64_t o = begin; o < end; ++o) {
    const T horizontal = planes[o] + planes[size + o];
    grad_x[o] = static_cast<S>(horizontal + planes[2 * size + o] + planes[3 * size + o]);
  }
}

template <typename S>
void backward(const BackwardArgs& b, void* separate) {
  const GroupTasks tasks(b);
  if (b.grad_x && !separate) {
    for_tasks(tasks.count, [&](int64_t task) { backward_merged<S>(b, task, tasks); });
    return;
  }
  for_tasks(tasks.count * b.directions, [&](int64_t task) { backward_separate<S>(b, task, tasks, separate); });
  if (b.grad_x) {
    for_pieces(b.batch * b.channels * b.plane(),
               [&](int64_t begin, int64_t end) { add_separate<S>(b, separate, begin, end); });
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
