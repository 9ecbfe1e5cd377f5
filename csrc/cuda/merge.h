// The kernels that join what blocks have computed apart, always in the same order.
//
// One thread a value, neighbouring threads neighbouring values.
#pragma once

#include "result.h"

namespace spn {
namespace cuda {

constexpr int kMergeThreads = 256;

// out = merge over d of planes (D, N, C, H, W), and which direction won.
template <typename S>
SPN_KERNEL(kMergeThreads, 4)
merge_kernel(ForwardArgs f, const StateOf<S>* planes) {
  using T = StateOf<S>;
  const int64_t size = f.batch * f.channels * f.plane(), stride = int64_t{gridDim.x} * kMergeThreads;
  const T scale = merge_scale<T>(f);
#pragma unroll 1
  for (int64_t o = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x; o < size; o += stride) {
    T value[kDirections];
#pragma unroll
    for (int d = 0; d < kDirections; ++d) value[d] = load(planes + d * size + o) * scale;
    uint8_t winner = 0;
    T merged = value[0];
#pragma unroll
    for (int d = 1; d < kDirections; ++d) {
      if (f.merge != Merge::max) {
        merged += value[d];
      } else if (beats(value[d], merged)) {
        merged = value[d];
        winner = static_cast<uint8_t>(d);
      }
    }
    store(static_cast<S*>(f.out) + o, static_cast<S>(merged));
    if (f.winner) store(f.winner + o, winner);
  }
}

// grad_x = sum over d of planes (D, N, C, H, W).
template <typename S>
SPN_KERNEL(kMergeThreads, 4)
add_kernel(BackwardArgs b, const StateOf<S>* planes) {
  using T = StateOf<S>;
  const int64_t size = b.batch * b.channels * b.plane(), stride = int64_t{gridDim.x} * kMergeThreads;
#pragma unroll 1
  for (int64_t o = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x; o < size; o += stride) {
    T total = load(planes + o);
#pragma unroll
    for (int d = 1; d < kDirections; ++d) total += load(planes + d * size + o);
    store(static_cast<S*>(b.grad_x) + o, static_cast<S>(total));
  }
}

// grad (planes, H, W) = sum over the parts of partial (planes, parts, H, W).
template <typename S>
SPN_KERNEL(kMergeThreads, 4)
sum_parts_kernel(S* grad, const StateOf<S>* partial, int64_t planes, int64_t parts, int64_t plane) {
  using T = StateOf<S>;
  const int64_t size = planes * plane;
#pragma unroll 1
  for (int64_t o = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x; o < size;
       o += int64_t{gridDim.x} * kMergeThreads) {
    const T* first = partial + o / plane * parts * plane + o % plane;
    T total = load(first);
#pragma unroll 4
    for (int64_t part = 1; part < parts; ++part) total += load(first + part * plane);
    store(grad + o, static_cast<S>(total));
  }
}

}  // namespace cuda
}  // namespace spn
