// The backward pass over whole planes. It walks the blocks of every sweep from the last to the first and recomputes
// each block from its checkpoint. Sets of planes and separate planes work as in forward.h, but a task owns whole groups
// of planes, because gradients of shared gates are sums over a group. A gradient that is not requested costs nothing.
// Without the gradient of the gates, the hidden lines need not be recomputed.
#pragma once

#include "gradients.h"
#include "planes.h"
#include "tasks.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Compute the adjoint of one run of sweep d over planes begin .. end - 1. `store(q, block, lines)` receives grad_x.
template <typename S, typename Inputs, typename Store>
void backward_sweep(const BackwardArgs& b, Inputs& inputs, int64_t begin, int64_t end, int d, const Run& run,
                    Store store) {
  using T = StateOf<S>;
  const Beside beside = b.grad_gates ? Beside::all : b.grad_source ? Beside::lambda : Beside::nothing;
  const LineKernels<T> kernels =
      line_kernels<Inputs::kApart, T>(inputs.gates().still_to_do(), b.source != nullptr, beside);
  const Sweep& s = inputs.sweep;
  constexpr int64_t lines = Inputs::kLines;
  const int64_t stride = inputs.stride, size = lines * stride, values = s.positions * Inputs::kApart;
  T* hidden = scratch<T>(Slot::hidden, size);
  T* grads = scratch<T>(Slot::grad, size);
  T* grads_x = scratch<T>(Slot::grad_x, size);
  GateGradients<S, Inputs> grad_gates(b, inputs, begin, end, d);
  SourceGradients<S, Inputs> grad_source(b, inputs, begin, end, d);
  T* entering = scratch<T>(Slot::entering, stride);
  T* sent = scratch<T>(Slot::sent, 3 * sent_stride(values));
  const int64_t carried = count_sets(begin, end, Inputs::kPlanes) * stride;
  T* carries = scratch<T>(Slot::carry, carried);
  std::fill_n(sent, 3 * sent_stride(values), T(0));
  std::fill_n(carries, carried, T(0));
  const T* checkpoints = static_cast<const T*>(b.checkpoints) + b.checkpoint_offset(d);
  const int64_t checkpoint_stride = b.checkpoint_offset(b.directions);

  for (int64_t t0 = run.first + (run.end - 1 - run.first) / lines * lines; t0 >= run.first; t0 -= lines) {
    const Block block{t0, std::min(lines, run.end - t0), -lines};
    T* carry = carries;
    for (int64_t q = begin; q < end; q += Inputs::kPlanes, carry += stride) {
      inputs.gather(block, q);
      with_result_gradient<S>(b, d, [&](auto access_of) { inputs.gather_by(block, q, access_of, grads); });

      // Line i needs h of the previous line: the checkpoint, or a line recomputed from it.
      if (!b.starts_at(t0) && b.reads_hidden()) {
        const T* saved = checkpoints + q * checkpoint_stride + (t0 / kCheckpointLines - 1) * s.positions;
        inputs.load_line(saved, q, checkpoint_stride, entering);
      }
      const auto previous = [&](int64_t i) -> const T* {
        if (b.starts_at(t0 + i)) return nullptr;
        return i > 0 ? hidden + (i - 1) * stride : entering;
      };
      for (int64_t i = 0; b.reads_hidden() && i + 1 < block.count; ++i) {
        kernels.forward(inputs.line(i, previous(i)), hidden + i * stride);
      }
      const auto backward_line = b.grad_gates && grad_gates.adds(q) ? kernels.add : kernels.backward;
      for (int64_t i = block.count - 1; i >= 0; --i) {
        const LineGradients<T> out{grads_x + i * stride, grad_gates.line(block, q, i), grad_source.line(i)};
        backward_line(inputs.line(i, previous(i)), grads + i * stride, carry, sent + kPadding, out);
      }

      if (b.grad_x) store(q, block, grads_x);
      if (b.grad_gates) grad_gates.store(block, q);
      if (b.grad_source) grad_source.store(block, q);
    }
  }
}

// Adds up the contributions of the sweeps to grad_x: in grad_x itself, or in scratch if the dtype of grad_x is narrower
// than the hidden state.
template <typename S>
class AddedPlanes {
 public:
  using Inputs = PlaneInputs<S>;
  using T = StateOf<S>;

  AddedPlanes(const BackwardArgs& b, int64_t begin, int64_t end)
      : b_(b), begin_(begin), size_((end - begin) * b.plane()), out_(static_cast<S*>(b.grad_x) + begin * b.plane()) {
    total_ = state_planes(out_, size_);
  }

  void take(const Inputs& inputs, int d, int64_t q, const Block& block, const T* lines) {
    T* target = total_ + (q - begin_) * b_.plane();
    if (d == 0) {
      scatter_lines(inputs.sweep, block, lines, inputs.stride, Assign<T, T>{target, T(1)});
    } else {
      scatter_lines(inputs.sweep, block, lines, inputs.stride, Add<T>{target, T(1)});
    }
  }

  void finish() {
    if constexpr (!std::is_same_v<S, T>) {
      round_values(total_, size_, out_);
      release_large_scratch();
    }
  }

 private:
  const BackwardArgs& b_;
  int64_t begin_, size_;
  S* out_;
  T* total_;
};

// The same for sets of interleaved planes.
template <typename S>
class AddedSets {
 public:
  using Inputs = SetInputs<S>;
  using T = StateOf<S>;

  AddedSets(const BackwardArgs& b, int64_t begin, int64_t end) : b_(b), begin_(begin), end_(end) {
    constexpr int64_t n = Inputs::kPlanes;
    total_ = scratch<T>(Slot::plane, count_sets(begin, end, n) * n * b.plane());
  }

  void take(const Inputs& inputs, int d, int64_t q, const Block& block, const T* lines) {
    T* target = total_ + (q - begin_) * b_.plane();
    if (d == 0) {
      scatter_vectors(inputs.sweep, block, lines, Assign<T, T>{target, T(1)});
    } else {
      scatter_vectors(inputs.sweep, block, lines, Add<T>{target, T(1)});
    }
  }

  void finish() { separate_planes<T>(b_, total_, begin_, end_, static_cast<S*>(b_.grad_x)); }

 private:
  const BackwardArgs& b_;
  int64_t begin_, end_;
  T* total_;
};

template <typename S, typename Added>
void backward_added(const BackwardArgs& b, int64_t begin, int64_t end) {
  using Inputs = typename Added::Inputs;
  const auto x = Inputs::planes_of(b, b.reads_x() ? b.x : nullptr, begin, end);
  Added added(b, begin, end);
  for (int d = 0; d < b.directions; ++d) {
    Inputs inputs(b, x, b.gates, b.source, begin, end, d);
    backward_sweep<S>(
        b, inputs, begin, end, d, whole_sweep(b, d),
        [&](int64_t q, const Block& block, const auto* lines) { added.take(inputs, d, q, block, lines); });
  }
  added.finish();
}

// Compute a run of one sweep on its own. Its contribution to grad_x, if requested, goes to the planes at plane_of(q).
template <typename S, typename Inputs, typename PlaneOf>
void backward_apart(const BackwardArgs& b, int64_t begin, int64_t end, int d, const Run& run, PlaneOf plane_of) {
  Inputs inputs(b, Inputs::planes_of(b, b.reads_x() ? b.x : nullptr, begin, end), b.gates, b.source, begin, end, d);
  backward_sweep<S>(b, inputs, begin, end, d, run,
                    [&](int64_t q, const Block& block, const auto* lines) { inputs.put(block, q, lines, plane_of); });
}

// Add up values begin .. end - 1 of grad_x from the separate planes of the sweeps, in the order of the directions.
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

// `separate` is null, or (D, N, C, H, W) in the dtype of the hidden state. It is only used for grad_x.
template <typename S, typename Added>
void backward(const BackwardArgs& b, const PlaneTasks& tasks, void* separate) {
  using T = StateOf<S>;
  using Inputs = typename Added::Inputs;
  constexpr bool kSets = Inputs::kPlanes > 1;
  if (b.grad_x && !separate && (b.directions > 1 || kSets)) {
    for_tasks(tasks, 1, [&](int64_t begin, int64_t end, int64_t) { backward_added<S, Added>(b, begin, end); });
    return;
  }
  const int64_t plane = b.plane(), size = b.batch * b.channels * plane;
  for_sweeps(b, tasks, !kSets, [&](int64_t begin, int64_t end, int d, const Run& run) {
    const auto into = [&](auto* planes) {
      backward_apart<S, Inputs>(b, begin, end, d, run, [&](int64_t q) { return planes + q * plane; });
    };
    if constexpr (!kSets) {
      if (!separate) return into(static_cast<S*>(b.grad_x));  // there is only one sweep
    }
    into(static_cast<T*>(separate) + d * size);
  });
  if (separate) for_pieces(size, [&](int64_t begin, int64_t end) { add_separate<S>(b, separate, begin, end); });
}

template <typename S>
PlaneTasks backward_tasks(const Problem& problem) {
  constexpr int64_t n = kLanes<StateOf<S>>;
  return takes_sets_backward(problem, n) ? backward_set_tasks(problem, n) : backward_plane_tasks(problem);
}

template <typename S>
void backward(const BackwardArgs& b, void* separate) {
  if (takes_sets_backward(b, kLanes<StateOf<S>>)) {
    backward<S, AddedSets<S>>(b, backward_tasks<S>(b), separate);
  } else {
    backward<S, AddedPlanes<S>>(b, backward_tasks<S>(b), separate);
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
