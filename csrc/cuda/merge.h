// The kernels that join what blocks have computed apart, always in the same order.
//
// One thread a value, neighbouring threads neighbouring values.
#pragma once

#include "parts.h"
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

// grad (N, D, planes of a sweep, H, W), of the launch's chunk, = sum over the parts of partial (N, D, planes of a
// sweep, parts, values of a part).
template <typename S>
SPN_KERNEL(kMergeThreads, 4)
sum_parts_kernel(Problem p, Plan plan, S* grad, const StateOf<S>* partial, int64_t planes_of_sweep, int64_t parts) {
  using T = StateOf<S>;
  const int64_t values = part_values(p, plan.chunks);
  const int64_t size = p.batch * p.directions * planes_of_sweep * values;
#pragma unroll 1
  for (int64_t o = int64_t{blockIdx.x} * kMergeThreads + threadIdx.x; o < size;
       o += int64_t{gridDim.x} * kMergeThreads) {
    const int64_t plane = o / values, i = o % values;
    const Part part(p, plan, static_cast<int>(plane / planes_of_sweep % p.directions));
    const int64_t row = i / part.pitch, column = i % part.pitch;
    if (row >= part.rows || column >= part.columns) continue;
    const T* first = partial + plane * parts * values + i;
    T total = load(first);
#pragma unroll 4
    for (int64_t k = 1; k < parts; ++k) total += load(first + k * values);
    store(grad + plane * p.plane() + (part.row + row) * p.width + part.column + column, static_cast<S>(total));
  }
}

}  // namespace cuda
}  // namespace spn
