// The arithmetic of a tile in the forward pass: line by line, with one barrier per line.
#pragma once

#include "forward_sweep.h"

namespace spn {
namespace cuda {

template <typename S>
struct ForwardLines {
  using T = StateOf<S>;
  using Memory = ForwardMemory<S>;
  static constexpr int kCount = kTogether<S>;

  const ForwardArgs& f;
  const ForwardSweep<S>& in;
  const Memory& memory;
  LaneView<S> view;
  unsigned starts;  // see restarts.h
  int stage;
  bool has_minus, has_plus;

  // `h` is the hidden state at this thread's position, on entry before the tile and on return after it. Lines and
  // positions outside the map are also computed, from tiles that are zero there. They do not affect the result.
  template <bool kSource>
  SPN_DEVICE void run(T& h) const {
    T* const even = memory.line(0) + threadIdx.x;
    T* const odd = memory.line(1) + threadIdx.x;
#pragma unroll 1
    for (int i = 0; i < kLines; i += kCount) {
      Taps<T> p[kCount];
      T x[kCount], lambda[kCount] = {};
      view.read_taps(memory.tile(stage, Memory::gates), Memory::kTile, i, p);
      view.read(memory.tile(stage, Memory::x), i, x);
      if (kSource) view.read(memory.tile(stage, Memory::source), i, lambda);
      normalize_lines(f.normalize, p, has_minus, has_plus);
      const unsigned starts_here = starts >> i & ((1u << kCount) - 1);
      with_starts(starts_here, [&](auto any) {
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const T* before = k % 2 ? even : odd;
          if (decltype(any)::value && starts_here >> k & 1) {
            h = start<kSource>(x[k], lambda[k]);
          } else {
            h = step<kSource>(x[k], lambda[k], p[k], Taps<T>{load(before - 1), h, load(before + 1)});
          }
          x[k] = h;
          store(k % 2 ? odd : even, h);
          SPN_BARRIER(0);
        }
      });
      view.write(memory.results(stage), i, x);
    }
  }
};

}  // namespace cuda
}  // namespace spn
