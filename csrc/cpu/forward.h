// The forward pass over whole planes.
//
// A task owns some channels of one sample. It walks each sweep in blocks of kBlockLines lines: gather the block's
// gates and input so that positions are contiguous, step through the lines, scatter the result to where it belongs.
// Gates that several channels share are gathered once for all of them.
//
// Where there are fewer tasks than threads, every sweep becomes a task of its own with a plane of its own, and the
// planes are merged afterwards in the order of the directions: results do not depend on the number of threads.
#pragma once

#include "planes.h"
#include "tasks.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Sweep d over channels c0 .. c1 - 1; `store(c, sweep, block, lines, stride)` takes each finished block.
template <typename S, typename Store>
void forward_sweep(const ForwardArgs& f, int64_t n, int64_t c0, int64_t c1, int d, Store store) {
  using T = StateOf<S>;
  const auto forward_line = line_kernels<T>(f.normalize, f.source != nullptr, Beside::nothing).forward;
  const Sweep s = f.sweep(d);
  const int64_t stride = padded(s.positions);
  constexpr int64_t lines = kBlockLines<S>;
  T* hidden = scratch<T>(Slot::hidden, lines * stride);
  T* carries = scratch<T>(Slot::carry, (c1 - c0) * stride);
  const int64_t checkpoint_stride = f.checkpoint_offset(f.directions);
  BlockInputs<S> inputs(f, f.x, f.gates, f.source, n, d, lines);

  for (int64_t t0 = 0; t0 < s.lines; t0 += lines) {
    const Block block{t0, std::min(lines, s.lines - t0), lines};
    for (int64_t c = c0; c < c1; ++c) {
      inputs.gather(block, c, enters_group(f, f.gate_groups, c, c0), enters_group(f, f.source_groups, c, c0));
      T* carry = carries + (c - c0) * stride;
      const T* previous = t0 == 0 ? nullptr : carry;
      for (int64_t i = 0; i < block.count; ++i) {
        forward_line(inputs.line(i, previous), hidden + i * stride);
        previous = hidden + i * stride;
      }
      std::copy_n(previous, s.positions, carry);
      for (int64_t t = t0 + kCheckpointLines; f.checkpoints && t <= t0 + block.count && t < s.lines;
           t += kCheckpointLines) {
        T* saved = static_cast<T*>(f.checkpoints) + (n * f.channels + c) * checkpoint_stride + f.checkpoint_offset(d);
        std::copy_n(hidden + (t - 1 - t0) * stride, s.positions, saved + (t / kCheckpointLines - 1) * s.positions);
      }
      store(c, s, block, hidden, stride);
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
  forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, const Block& b, const T* h, int64_t stride) {
    scatter_lines(s, b, h, stride, Assign<S, T>{planes + c * f.plane(), T(1)});
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
    forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, const Block& b, const T* h, int64_t stride) {
      const int64_t o = (c - c0) * plane;
      with_merge(f, d, merged + o, winner ? winner + o : nullptr,
                 [&](auto write) { scatter_lines(s, b, h, stride, write); });
    });
  }
  if constexpr (!std::is_same_v<S, T>) {
    round_values(merged, (c1 - c0) * plane, out);
    release_large_scratch();
  }
}

// One sweep into a plane of its own: `separate` is (D, N, C, H, W) in the state's dtype.
template <typename S>
void forward_separate(const ForwardArgs& f, int64_t task, const ChannelTasks& tasks, void* separate) {
  using T = StateOf<S>;
  int64_t n, c0, c1;
  tasks.range(f, task / f.directions, n, c0, c1);
  const int d = direction_of_task(task % f.directions);
  T* planes = static_cast<T*>(separate) + (d * f.batch + n) * f.channels * f.plane();
  forward_sweep<S>(f, n, c0, c1, d, [&](int64_t c, const Sweep& s, const Block& b, const T* h, int64_t stride) {
    scatter_lines(s, b, h, stride, Assign<T, T>{planes + c * f.plane(), T(1)});
  });
}

// Values begin .. end - 1 of the merged map, from the sweeps' separate planes, in the order of the directions.
template <typename S>
void merge_separate(const ForwardArgs& f, const void* separate, int64_t begin, int64_t end) {
  using T = StateOf<S>;
  const int64_t size = f.batch * f.channels * f.plane(), count = end - begin;
  const T* planes = static_cast<const T*>(separate) + begin;
  uint8_t* winner = f.winner ? f.winner + begin : nullptr;
  S* out = static_cast<S*>(f.out) + begin;
  T* merged;
  if constexpr (std::is_same_v<S, T>) {
    merged = out;
  } else {
    merged = scratch<T>(Slot::plane, count);
  }
  if (winner) std::fill_n(winner, count, uint8_t{0});
  for (int d = 0; d < f.directions; ++d) {
    with_merge(f, d, merged, winner, [&](auto write) { write_values(planes + d * size, count, write); });
  }
  if constexpr (!std::is_same_v<S, T>) round_values(merged, count, out);
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
    for_pieces(f.batch * f.channels * f.plane(),
               [&](int64_t begin, int64_t end) { merge_separate<S>(f, separate, begin, end); });
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
