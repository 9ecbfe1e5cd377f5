// The kernels that combine results of separate blocks, always in the same order.
//
// One thread per value; neighbouring threads process neighbouring values.
#pragma once

#include "parts.h"
#include "result.h"

namespace spn {
namespace cuda {

constexpr int kMergeThreads = 256;
constexpr int64_t kSlab = 16 * kMergeThreads;  // values of a part that one block adds up

SPN_HD int64_t slabs_of(int64_t values) {
  return (values + kSlab - 1) / kSlab;
}

// out = merge over d of planes (D, N, C, H, W); winner = the selected direction.
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

// grad (N, D, planes of a sweep, H, W), within the chunk of this launch, = sum over the parts of partial (N, D, planes
// of a sweep, parts, values of a part). A block processes a slab of a part's values, so that many values share the
// divisions.
template <typename S>
SPN_KERNEL(kMergeThreads, 2)
sum_parts_kernel(Problem p, Plan plan, S* grad, const StateOf<S>* partial, int64_t planes_of_sweep, int64_t parts) {
  using T = StateOf<S>;
  const int64_t values = part_values(p, plan.chunks), slabs = slabs_of(values);
  const int64_t tasks = p.batch * p.directions * planes_of_sweep * slabs;
#pragma unroll 1
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const int64_t plane = task / slabs, begin = task % slabs * kSlab, rest = values - begin;
    const Part part(p, plan, static_cast<int>(plane / planes_of_sweep % p.directions));
    const int end = static_cast<int>(rest < kSlab ? rest : kSlab);
    const T* first = partial + plane * parts * values + begin;
    S* const origin = grad + plane * p.plane() + part.row * p.width + part.column;
    int64_t row = (begin + threadIdx.x) / part.pitch, column = (begin + threadIdx.x) % part.pitch;
    const int64_t rows = kMergeThreads / part.pitch, columns = kMergeThreads % part.pitch;  // step to the next value
#pragma unroll 1
    for (int i = threadIdx.x; i < end; i += kMergeThreads) {
      if (row < part.rows && column < part.columns) {
        T total = load(first + i);
#pragma unroll 4
        for (int64_t k = 1; k < parts; ++k) total += load(first + i + k * values);
        store(origin + row * p.width + column, static_cast<S>(total));
      }
      row += rows;
      column += columns;
      if (column >= part.pitch) column -= part.pitch, ++row;
    }
  }
}

}  // namespace cuda
}  // namespace spn
