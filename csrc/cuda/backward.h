// The backward kernel.
//
//   block, warp, lane   as in forward.h: a plane, 32 positions, one position
//
// A sweep is walked from its last block of 16 lines to its first. The block's hidden lines are recomputed from the
// checkpoint before it, in two steps that keep 7 lines rather than 16:
//
//   up     rung 0 = checkpoint -> rung 1 = line 3 -> rung 2 = line 7 -> rung 3 = line 11
//   down   for each rung from the last: its three other lines, then the adjoint of its four lines, last one first
//
// What line t sends back to line t - 1 goes through shared memory, two lines that change places: one barrier a line.
// Gradients replace the values that their step has consumed: gates, source, and grad (and x, see put_result).
#pragma once

#include "plan.h"
#include "result.h"

namespace spn {
namespace cuda {

// A sweep's planes, and where its gradients go.
template <typename S>
struct BackwardSweep {
  using T = StateOf<S>;
  Sweep sweep;
  const S *gates[3], *x, *grad, *source;
  const uint8_t* winner;  // null where all of grad is this sweep's
  uint8_t direction;
  T grad_scale;
  const T* checkpoints;
  S *grad_gates[3], *grad_source;            // null where the channels' gradients are summed later:
  T *partial_gates[3], *partial_source;
  Target<S> target;
};

template <typename S, bool kFits>
SPN_DEVICE void run_backward(const BackwardArgs& b, const Plan& plan, const BackwardSweep<S>& in,
                             unsigned char* scratch) {
  using T = StateOf<S>;
  const Sweep& s = in.sweep;
  const bool source = in.source != nullptr;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int tiles = static_cast<int>((s.positions + kWarp - 1) / kWarp), lines = 1 << plan.lines_log2;
  const int64_t padded = int64_t{plan.tiles} * kWarp, block_values = padded << plan.lines_log2;

  // Scratch: the state's lines, tiles in the state's dtype, tiles of S (gates, x, grad, source), the winners' tile.
  T* rungs = reinterpret_cast<T*>(scratch);
  T* hidden = rungs + kRungs * padded;
  T* sent_lines = hidden + (kRungLines - 1) * padded;  // minus, plus of an even line, of an odd line; zero
  T* wide = sent_lines + 5 * padded;
  T* wide_source = wide + (plan.wide_gates ? 3 * block_values : 0);
  S* staged = reinterpret_cast<S*>(wide_source + (plan.wide_source ? block_values : 0));
  uint8_t* winners = reinterpret_cast<uint8_t*>(staged + (source ? 6 : 5) * block_values);
  const auto tile_at = [&](auto* base, int array, int q) {
    return base + (int64_t{array} * plan.tiles + q) * (kWarp << plan.lines_log2);
  };
  const auto before_line = [&](int l) { return l % kRungLines ? hidden + (l % kRungLines - 1) * padded : rungs + l / kRungLines * padded; };

  int64_t t0 = 0;  // the block's first line
  int count = 0;   // its lines
  const auto tile_of = [&](int first, int q) {
    return Tile<S>(s, t0 + first, count - first < lines ? count - first : lines, int64_t{q} * kWarp, plan.lines_log2);
  };

  // Brings in the tile that begins at line `first` of the block.
  const auto bring = [&](int first, bool with_grad) {
    for (int q = warp; q < tiles; q += warps) {
      const Tile<S> tile = tile_of(first, q);
      for (int tap = 0; tap < 3; ++tap) copy_in<kFits>(tile_at(staged, tap, q), in.gates[tap], tile, plan.paired);
      copy_in<kFits>(tile_at(staged, 3, q), in.x, tile, plan.paired);
      if (source) copy_in<kFits>(tile_at(staged, 5, q), in.source, tile, plan.paired);
      if (!with_grad) continue;
      copy_in<kFits>(tile_at(staged, 4, q), in.grad, tile, plan.paired);
      if (in.winner) {
        tile.template for_values<1>(0, tile.values, [&](int k, int64_t o, bool inside) {
          if (inside) store(tile_at(winners, 0, q) + k, load(in.winner + o));
        });
      }
    }
    copy_commit();
    copy_wait<0>();
    SPN_WARP_BARRIER(0);
  };

  // f(tile's number, index in the tile, position, has_minus, has_plus) for this thread's positions of line `l`.
  const auto for_line = [&](int l, auto f) {
    for (int q = warp; q < tiles; q += warps) {
      const int64_t j = int64_t{q} * kWarp + lane;
      if (j < s.positions) f(q, tile_of(l & ~(lines - 1), q).line(l & (lines - 1)), j, j > 0, j + 1 < s.positions);
      if (kFits) break;
    }
  };
  const auto value = [&](int array, int q, int k) { return static_cast<T>(load(tile_at(staged, array, q) + k)); };
  const auto gates_at = [&](int q, int k) { return Taps<T>{value(0, q, k), value(1, q, k), value(2, q, k)}; };

  const auto forward_line = [&](int l) {
    T* now = l % kRungLines == kRungLines - 1 ? rungs + (l / kRungLines + 1) * padded : hidden + l % kRungLines * padded;
    for_line(l, [&](int q, int k, int64_t j, bool has_minus, bool has_plus) {
      const T x = value(3, q, k), lambda = source ? value(5, q, k) : T(0);
      T h = source ? lambda * x : x;
      if (t0 + l > 0) {
        const Taps<T> p = normalize_by(b.normalize, gates_at(q, k), has_minus, has_plus);
        h = step_by(source, x, lambda, p, taps_at(before_line(l), j, has_minus, has_plus));
      }
      store(now + j, h);
    });
    SPN_BARRIER(0);
  };

  const auto adjoint_line = [&](int l) {
    const int64_t t = t0 + l;
    T* sent = sent_lines + (t & 1) * 2 * padded;
    const T* received = sent_lines + (~t & 1) * 2 * padded;
    T* sent_zero = sent_lines + 4 * padded;  // stays in its thread
    for_line(l, [&](int q, int k, int64_t j, bool has_minus, bool has_plus) {
      T a = value(4, q, k) * in.grad_scale;
      if (in.winner && load(tile_at(winners, 0, q) + k) != in.direction) a = T(0);
      if (t + 1 < s.lines) {
        // Position j is tap k of position j - k of line t + 1.
        a += (has_plus ? load(received + j + 1) : T(0)) + load(sent_zero + j) +
             (has_minus ? load(received + padded + j - 1) : T(0));
      }
      const T x = value(3, q, k), lambda = source ? value(5, q, k) : T(0);
      T grad_x = source ? lambda * a : a;
      Taps<T> dg{T(0), T(0), T(0)};
      if (t > 0) {
        const Taps<T> g = gates_at(q, k), previous = taps_at(before_line(l), j, has_minus, has_plus);
        const Taps<T> p = normalize_by(b.normalize, g, has_minus, has_plus);
        grad_x = source ? input_adjoint<true>(a, lambda, p) : input_adjoint<false>(a, lambda, p);
        const Taps<T> dp = source ? gate_adjoint<true>(a, x, previous, has_minus, has_plus)
                                  : gate_adjoint<false>(a, x, previous, has_minus, has_plus);
        dg = normalize_adjoint_by(b.normalize, g, p, dp, has_minus, has_plus);
        store(sent + j, p.minus * a);
        store(sent_zero + j, p.zero * a);
        store(sent + padded + j, p.plus * a);
      }
      put_result(tile_at(staged, 4, q), tile_at(staged, 3, q), k, grad_x);
      if (plan.wide_gates) {
        store(tile_at(wide, 0, q) + k, dg.minus);
        store(tile_at(wide, 1, q) + k, dg.zero);
        store(tile_at(wide, 2, q) + k, dg.plus);
      } else {
        store(tile_at(staged, 0, q) + k, static_cast<S>(dg.minus));
        store(tile_at(staged, 1, q) + k, static_cast<S>(dg.zero));
        store(tile_at(staged, 2, q) + k, static_cast<S>(dg.plus));
      }
      if (source && plan.wide_source) {
        store(tile_at(wide_source, 0, q) + k, x * a);
      } else if (source) {
        store(tile_at(staged, 5, q) + k, static_cast<S>(x * a));
      }
    });
    SPN_BARRIER(1);
  };

  const auto send_out = [&](int first) {
    for (int q = warp; q < tiles; q += warps) {
      const Tile<S> tile = tile_of(first, q);
      in.target.merge(tile_at(staged, 4, q), tile_at(staged, 3, q), tile);
      for (int tap = 0; tap < 3; ++tap) {
        if (plan.wide_gates) {
          copy_out(tile_at(wide, tap, q), in.partial_gates[tap], tile);
        } else {
          copy_out(tile_at(staged, tap, q), in.grad_gates[tap], tile);
        }
      }
      if (source && plan.wide_source) {
        copy_out(tile_at(wide_source, 0, q), in.partial_source, tile);
      } else if (source) {
        copy_out(tile_at(staged, 5, q), in.grad_source, tile);
      }
    }
    SPN_WARP_BARRIER(1);
  };

  for (int64_t block = block_count(s.lines) - 1; block >= 0; --block) {
    t0 = block * kCheckpointLines;
    count = static_cast<int>(s.lines - t0 < kCheckpointLines ? s.lines - t0 : kCheckpointLines);
    const int last_rung = (count - 1) / kRungLines, last_tile = (count - 1) & ~(lines - 1);
    if (block > 0) {
      for_line(0, [&](int, int, int64_t j, bool, bool) {
        store(rungs + j, load(in.checkpoints + (block - 1) * s.positions + j));
      });
      SPN_BARRIER(2);
    }
    for (int l = 0; l <= last_tile; ++l) {
      if (l % lines == 0) bring(l, l == last_tile);
      if (l < last_rung * kRungLines) forward_line(l);
    }
    for (int l = last_tile + 1; l < last_rung * kRungLines; ++l) forward_line(l);

    for (int rung = last_rung; rung >= 0; --rung) {
      const int first = rung * kRungLines, end = count < first + kRungLines ? count : first + kRungLines;
      const int tile_first = first & ~(lines - 1);
      if (tile_first != last_tile && (first + kRungLines) % lines == 0) bring(tile_first, true);
      for (int l = first; l + 1 < end; ++l) forward_line(l);
      for (int l = end - 1; l >= first; --l) adjoint_line(l);
      if (first == tile_first) send_out(first);
    }
  }
}

template <typename S, bool kFits>
SPN_KERNEL(kMaxThreads) backward_kernel(BackwardArgs b, Plan plan) {
  using T = StateOf<S>;
  SPN_SHARED(shared);
  unsigned char* scratch = shared;
  if (!kFits && !plan.in_shared) scratch = plan.workspace + blockIdx.x * plan.scratch_bytes;
  const int64_t plane = b.plane(), channel_planes = b.batch * b.channels;
  const bool shares_gates = b.gate_groups < b.channels, shares_source = b.source && b.source_groups < b.channels;

  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    const int64_t index = plan.split ? task / b.directions : task;  // of the plane (n, c)
    const int64_t n = index / b.channels, c = index % b.channels;
    const int first = plan.split ? static_cast<int>(task % b.directions) : 0;
    const int end = plan.split ? first + 1 : b.directions;

    for (int d = first; d < end; ++d) {
      BackwardSweep<S> in;
      in.sweep = b.sweep(d);
      in.source = b.source ? static_cast<const S*>(b.source) + b.source_plane(n, d, c) * plane : nullptr;
      in.x = static_cast<const S*>(b.x) + index * plane;
      in.grad = static_cast<const S*>(b.grad) + index * plane;
      in.winner = nullptr;
      in.grad_scale = merge_scale<T>(b);
      in.direction = static_cast<uint8_t>(d);
      if (b.merge == Merge::none) {
        in.grad = static_cast<const S*>(b.grad) + ((n * b.directions + d) * b.channels + c) * plane;
      } else if (b.merge == Merge::max) {
        in.winner = b.winner + index * plane;
      }
      in.checkpoints = static_cast<const T*>(b.checkpoints) + index * b.checkpoint_offset(b.directions) +
                       b.checkpoint_offset(d);

      // Where gates are shared, the gradient of each channel for itself: (N, D, 3, C, H, W), and (N, D, C, H, W).
      T* partial_gates = reinterpret_cast<T*>(plan.workspace + plan.partial_gates);
      T* partial_source = reinterpret_cast<T*>(plan.workspace + plan.partial_source);
      for (int tap = 0; tap < 3; ++tap) {
        const int64_t gate_plane = b.gate_plane(n, d, tap, c);
        in.gates[tap] = static_cast<const S*>(b.gates) + gate_plane * plane;
        in.grad_gates[tap] = static_cast<S*>(b.grad_gates) + gate_plane * plane;
        in.partial_gates[tap] = partial_gates + (((n * b.directions + d) * 3 + tap) * b.channels + c) * plane;
        if constexpr (std::is_same_v<S, T>) {
          if (shares_gates) in.grad_gates[tap] = in.partial_gates[tap];
        }
      }
      in.grad_source = b.source ? static_cast<S*>(b.grad_source) + b.source_plane(n, d, c) * plane : nullptr;
      in.partial_source = partial_source + ((n * b.directions + d) * b.channels + c) * plane;
      if constexpr (std::is_same_v<S, T>) {
        if (shares_source) in.grad_source = in.partial_source;
      }

      S* grad_x = static_cast<S*>(b.grad_x) + index * plane;
      T* planes = reinterpret_cast<T*>(plan.workspace + plan.planes);
      if (plan.split) {
        in.target.wide = planes + (d * channel_planes + index) * plane;
      } else {
        T* running = planes + index * plane;
        if constexpr (std::is_same_v<S, T>) running = grad_x;
        in.target.old = d > 0 ? running : nullptr;
        if (d + 1 < b.directions) {
          in.target.wide = running;
        } else {
          in.target.narrow = grad_x;
        }
      }
      SPN_BARRIER(3);  // the sweep before has left its sum
      run_backward<S, kFits>(b, plan, in, scratch);
    }
  }
}

}  // namespace cuda
}  // namespace spn
