// The arithmetic of a tile in the backward pass: its lines up from the checkpoint, then the adjoint down.
//
//   before(0)  checkpoint ---step---> before(1) ---step---> ...  before(15)         up: hidden lines, kept for gates
//   line 0  <---sent--- line 1  <---sent--- ...  line 15  <---sent--- line 16       down: sent to the line before
//
// Both ways need one barrier per line, because threads read values that their neighbours wrote.
#pragma once

#include "backward_planes.h"

namespace spn {
namespace cuda {

// Lines and positions outside the map are also computed, from tiles that are zero there. They do not affect the result.
template <typename S, bool kSource, typename Planes>
struct BackwardLines {
  using T = StateOf<S>;
  using Memory = BackwardMemory<S>;
  static constexpr int kCount = kTogether<S>;

  const BackwardArgs& b;
  const BackwardSweep<S>& in;
  const Memory& memory;
  const Stages& at;
  const Planes& planes;  // of the current channel
  unsigned starts;       // see restarts.h
  bool has_minus, has_plus;
  bool first_of_gates, first_of_source;  // whether this is the first channel that shares them

  // If no gradient needs the hidden lines, the checkpoint line is zero, and the other lines keep their initial zeros.
  SPN_DEVICE void up() const {
    T* line = memory.before(0) + threadIdx.x;
    store(line, load(memory.checkpoint(at.channel()) + threadIdx.x));
    SPN_BARRIER(0);
    if (!b.reads_hidden()) return;
#pragma unroll 1
    for (int i = 0; i < kLines; i += kCount) {
      const Values v = read(i);
      const unsigned starts_here = starts_from(i);
      with_starts(starts_here, [&](auto any) {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          if (i + k + 1 == kLines) break;  // no line of the tile follows the last line
          T h;
          if (decltype(any)::value && starts_here >> k & 1) {
            h = start<kSource>(v.x[k], v.lambda[k]);
          } else {
            h = step<kSource>(v.x[k], v.lambda[k], v.p[k], taps_at(line));
          }
          line += memory.pitch;
          store(line, h);
          SPN_BARRIER(1);
        }
      });
    }
  }

  // `received` is, on entry, the contribution of the line after the tile to this thread's position. On return it is the
  // contribution of line t0 to the line before the tile.
  SPN_DEVICE void down(T& received) const {
    const T* line = memory.before(kLines - 1) + threadIdx.x;
#pragma unroll 1
    for (int i = kLines - kCount; i >= 0; i -= kCount) {
      Values v = read(i);
      T a[kCount], grad_lambda[kCount];
      Taps<T> dp[kCount];
      planes.grad(i, a);
      uint8_t winner[kCount] = {};
      if (in.winner) planes.winner(i, winner);
      const unsigned starts_here = starts_from(i);
      with_starts(starts_here, [&](auto any) {
#pragma unroll
        for (int k = kCount - 1; k >= 0; --k) {
          const bool has_taps = !decltype(any)::value || !(starts_here >> k & 1);
          if (!has_taps) v.gates[k] = v.p[k] = {T(0), T(0), T(0)};
          const bool won = !in.winner || winner[k] == in.direction;
          a[k] = won ? received + a[k] * in.grad_scale : received;
          T* const minus = memory.sent_minus(k) + threadIdx.x;
          T* const plus = memory.sent_plus(k) + threadIdx.x;
          store(minus, v.p[k].minus * a[k]);
          store(plus, v.p[k].plus * a[k]);
          dp[k] = gate_adjoint<kSource>(a[k], v.x[k], taps_at(line), has_minus, has_plus);
          if (!has_taps) dp[k] = {T(0), T(0), T(0)};
          line -= memory.pitch;
          SPN_BARRIER(2);
          // Position j is tap k of position j - k.
          received = load(minus + 1) + v.p[k].zero * a[k] + load(plus - 1);
          if (!has_taps) received = T(0);  // for any a, also NaN
          grad_lambda[k] = v.x[k] * a[k];
          a[k] = input_adjoint<kSource>(a[k], v.lambda[k], v.p[k]);
        }
      });
      if (b.grad_x) planes.put_grad_x(i, a);
      if (b.grad_gates) put_gates(i, v, dp);
      if (kSource && b.grad_source)
        put(memory.sums.source, memory.sum_source(), memory.source(at.source()), i, grad_lambda, first_of_source);
    }
  }

 private:
  struct Values {
    Taps<T> gates[kCount], p[kCount];
    T x[kCount], lambda[kCount];
  };
  SPN_DEVICE Values read(int i) const {
    Values v;
    planes.view.read_taps(memory.tile(at.gates(), Memory::gates), Memory::kTile, i, v.gates);
    if (b.reads_x()) {
      planes.x(i, v.x);
    } else {
#pragma unroll
      for (int k = 0; k < kCount; ++k) v.x[k] = T(0);
    }
    if (kSource) planes.view.read(memory.source(at.source()), i, v.lambda);
#pragma unroll
    for (int k = 0; k < kCount; ++k) v.p[k] = v.gates[k];
    normalize_lines(b.normalize, v.p, has_minus, has_plus);
    return v;
  }
  SPN_DEVICE static Taps<T> taps_at(const T* value) { return {load(value - 1), load(value), load(value + 1)}; }

  SPN_DEVICE unsigned starts_from(int i) const { return starts >> i & ((1u << kCount) - 1); }

  SPN_DEVICE void put_gates(int i, const Values& v, Taps<T> (&dp)[kCount]) const {
    with_normalize(b.normalize, [&](auto chosen) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) {
        dp[k] = normalize_adjoint<decltype(chosen)::value>(v.gates[k], v.p[k], dp[k], has_minus, has_plus);
      }
    });
    T values[3][kCount];
#pragma unroll
    for (int k = 0; k < kCount; ++k) values[0][k] = dp[k].minus, values[1][k] = dp[k].zero, values[2][k] = dp[k].plus;
#pragma unroll
    for (int tap = 0; tap < 3; ++tap) {
      T* sums = memory.sum_gates() + tap * Memory::kTile;
      put(memory.sums.gates, sums, memory.tile(at.gates(), Memory::gates + tap), i, values[tap], first_of_gates);
    }
  }

  // Gradients overwrite the values that they belong to, or are added to the gradients of the previous channels.
  SPN_DEVICE void put(bool summed, T* sums, S* tile, int i, T (&values)[kCount], bool first) const {
    if (!summed) {
      planes.view.write(tile, i, values);
      return;
    }
    if (!first) {
      T before[kCount];
      planes.view.read(sums, i, before);
#pragma unroll
      for (int k = 0; k < kCount; ++k) values[k] += before[k];
    }
    planes.view.write(sums, i, values);
  }
};

}  // namespace cuda
}  // namespace spn
