// The forward pass over whole planes.
//
// A task processes some planes. It divides each sweep into blocks of lines. For each block, it copies the gates and the
// input so that the positions of a line are contiguous, computes the lines one after the other, and writes the results
// to their pixels. Small planes are processed in interleaved sets (interleave.h), larger planes one by one.
//
// If there are fewer tasks than threads, every sweep becomes a task with a separate plane. The planes are merged
// afterwards in the order of the directions, so that results do not depend on the number of threads. A sweep that
// restarts (restart_every) is divided into several tasks if there are few.
#pragma once

#include "planes.h"
#include "tasks.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Compute a run of sweep d over planes begin .. end - 1. `store(q, block, lines)` receives each finished block of plane
// q, or of the set that begins at plane q.
template <typename Inputs, typename Store>
void forward_sweep(const ForwardArgs& f, Inputs& inputs, int64_t begin, int64_t end, int d, const Run& run,
                   Store store) {
  using T = typename Inputs::T;
  const auto forward_line =
      line_kernels<Inputs::kApart, T>(inputs.gates().still_to_do(), f.source != nullptr, Beside::nothing).forward;
  const Sweep& s = inputs.sweep;
  const int64_t lines = inputs.lines, stride = inputs.stride, values = s.positions * Inputs::kApart;
  T* hidden = scratch<T>(Slot::hidden, lines * stride);
  T* carries = scratch<T>(Slot::carry, count_sets(begin, end, Inputs::kPlanes) * stride);
  T* checkpoints = static_cast<T*>(f.checkpoints) + f.checkpoint_offset(d);
  const int64_t checkpoint_stride = f.checkpoint_offset(f.directions);

  for (int64_t t0 = run.first; t0 < run.end; t0 += lines) {
    const Block block{t0, std::min(lines, run.end - t0), lines};
    T* carry = carries;
    for (int64_t q = begin; q < end; q += Inputs::kPlanes, carry += stride) {
      inputs.gather(block, q);
      const T* previous = carry;
      for (int64_t i = 0; i < block.count; ++i) {
        if (f.starts_at(t0 + i)) previous = nullptr;
        forward_line(inputs.line(i, previous), hidden + i * stride);
        previous = hidden + i * stride;
      }
      std::copy_n(previous, values, carry);
      for (int64_t t = t0 + kCheckpointLines; f.checkpoints && t <= t0 + block.count && t < s.lines;
           t += kCheckpointLines) {
        T* saved = checkpoints + q * checkpoint_stride + (t / kCheckpointLines - 1) * s.positions;
        inputs.save_line(hidden + (t - 1 - t0) * stride, q, saved, checkpoint_stride);
      }
      store(q, block, hidden);
    }
  }
}

// Merges the sweeps of planes in the precision of the hidden state, and rounds the result once. The running merge is in
// the result itself, or in scratch if the result has a narrower dtype than the hidden state.
template <typename S>
class MergedPlanes {
 public:
  using Inputs = PlaneInputs<S>;
  using T = StateOf<S>;

  MergedPlanes(const ForwardArgs& f, int64_t begin, int64_t end)
      : f_(f), begin_(begin), size_((end - begin) * f.plane()), out_(static_cast<S*>(f.out) + begin * f.plane()) {
    merged_ = state_planes(out_, size_);
    winner_ = f.winner ? f.winner + begin * f.plane() : nullptr;
    if (winner_) std::fill_n(winner_, size_, uint8_t{0});
  }

  void take(const Inputs& inputs, int d, int64_t q, const Block& block, const T* lines) {
    const int64_t o = (q - begin_) * f_.plane();
    with_merge(f_, d, merged_ + o, winner_ ? winner_ + o : nullptr,
               [&](auto write) { scatter_lines(inputs.sweep, block, lines, inputs.stride, write); });
  }

  void finish() {
    if constexpr (!std::is_same_v<S, T>) {
      round_values(merged_, size_, out_);
      release_large_scratch();
    }
  }

 private:
  const ForwardArgs& f_;
  int64_t begin_, size_;
  S* out_;
  T* merged_;
  uint8_t* winner_;
};

// The same for sets of interleaved planes.
template <typename S>
class MergedSets {
 public:
  using Inputs = SetInputs<S>;
  using T = StateOf<S>;

  MergedSets(const ForwardArgs& f, int64_t begin, int64_t end) : f_(f), begin_(begin), end_(end) {
    constexpr int64_t n = Inputs::kPlanes;
    const int64_t size = count_sets(begin, end, n) * n * f.plane();
    merged_ = scratch<T>(Slot::plane, size);
    winner_ = f.winner ? scratch<uint8_t>(Slot::winner_sets, size) : nullptr;
    if (winner_) std::fill_n(winner_, size, uint8_t{0});
  }

  void take(const Inputs& inputs, int d, int64_t q, const Block& block, const T* lines) {
    const int64_t o = (q - begin_) * f_.plane();
    with_merge(f_, d, merged_ + o, winner_ ? winner_ + o : nullptr,
               [&](auto write) { scatter_vectors(inputs.sweep, block, lines, write); });
  }

  void finish() {
    separate_planes<T>(f_, merged_, begin_, end_, static_cast<S*>(f_.out));
    if (winner_) separate_planes<T>(f_, winner_, begin_, end_, f_.winner);
  }

 private:
  const ForwardArgs& f_;
  int64_t begin_, end_;
  T* merged_;
  uint8_t* winner_;
};

template <typename Merged>
void forward_merged(const ForwardArgs& f, int64_t begin, int64_t end) {
  using Inputs = typename Merged::Inputs;
  const auto x = Inputs::planes_of(f, f.x, begin, end);
  Merged merged(f, begin, end);
  for (int d = 0; d < f.directions; ++d) {
    Inputs inputs(f, x, f.gates, f.source, begin, end, d, Inputs::forward_lines(f, d));
    forward_sweep(f, inputs, begin, end, d, whole_sweep(f, d),
                  [&](int64_t q, const Block& block, const auto* lines) { merged.take(inputs, d, q, block, lines); });
  }
  merged.finish();
}

// Compute a run of sweep d, without a merge, and write plane q to plane_of(q).
template <typename Inputs, typename PlaneOf>
void forward_apart(const ForwardArgs& f, int64_t begin, int64_t end, int d, const Run& run, PlaneOf plane_of) {
  const auto x = Inputs::planes_of(f, f.x, begin, end);
  Inputs inputs(f, x, f.gates, f.source, begin, end, d, Inputs::forward_lines(f, d));
  forward_sweep(f, inputs, begin, end, d, run,
                [&](int64_t q, const Block& block, const auto* lines) { inputs.put(block, q, lines, plane_of); });
}

// Merge values begin .. end - 1 from the separate planes of the sweeps, in the order of the directions.
template <typename S>
void merge_separate(const ForwardArgs& f, const void* separate, int64_t begin, int64_t end) {
  using T = StateOf<S>;
  const int64_t size = f.batch * f.channels * f.plane(), count = end - begin;
  const T* planes = static_cast<const T*>(separate) + begin;
  uint8_t* winner = f.winner ? f.winner + begin : nullptr;
  S* out = static_cast<S*>(f.out) + begin;
  T* merged = state_planes(out, count);
  if (winner) std::fill_n(winner, count, uint8_t{0});
  for (int d = 0; d < f.directions; ++d) {
    with_merge(f, d, merged, winner, [&](auto write) { write_values(planes + d * size, count, write); });
  }
  if constexpr (!std::is_same_v<S, T>) round_values(merged, count, out);
}

// `separate` is null, or (D, N, C, H, W) in the dtype of the hidden state.
template <typename S, typename Merged>
void forward(const ForwardArgs& f, const PlaneTasks& tasks, void* separate) {
  using Inputs = typename Merged::Inputs;
  using T = StateOf<S>;
  const int64_t plane = f.plane();
  if (f.merge == Merge::none) {
    for_sweeps(f, tasks, Inputs::kPlanes == 1, [&](int64_t begin, int64_t end, int d, const Run& run) {
      forward_apart<Inputs>(f, begin, end, d, run, [&](int64_t q) {
        const int64_t n = q / f.channels, c = q % f.channels;
        return static_cast<S*>(f.out) + ((n * f.directions + d) * f.channels + c) * plane;
      });
    });
  } else if (!separate) {
    for_tasks(tasks, 1, [&](int64_t begin, int64_t end, int64_t) { forward_merged<Merged>(f, begin, end); });
  } else {
    for_sweeps(f, tasks, Inputs::kPlanes == 1, [&](int64_t begin, int64_t end, int d, const Run& run) {
      T* planes = static_cast<T*>(separate) + d * f.batch * f.channels * plane;
      forward_apart<Inputs>(f, begin, end, d, run, [&](int64_t q) { return planes + q * plane; });
    });
    for_pieces(f.batch * f.channels * plane,
               [&](int64_t begin, int64_t end) { merge_separate<S>(f, separate, begin, end); });
  }
}

template <typename S>
PlaneTasks forward_tasks(const Problem& problem) {
  constexpr int64_t n = kLanes<StateOf<S>>;
  return takes_sets(problem, n) ? forward_set_tasks(problem, n) : forward_plane_tasks(problem);
}

template <typename S>
void forward(const ForwardArgs& f, void* separate) {
  if (takes_sets(f, kLanes<StateOf<S>>)) {
    forward<S, MergedSets<S>>(f, forward_tasks<S>(f), separate);
  } else {
    forward<S, MergedPlanes<S>>(f, forward_tasks<S>(f), separate);
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
