// The launches of a pass. Knows nothing of torch: the emulator compiles this file as it is.
#include "backward.h"
#include "forward.h"
#include "merge.h"
#include "propagate.h"

namespace spn {
namespace cuda {

namespace {

template <typename Visit>
cudaError_t with_dtype(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::float32: return visit(float{});
    case DType::float64: return visit(double{});
    case DType::float16: return visit(torch::headeronly::Half{});
    default: return visit(torch::headeronly::BFloat16{});
  }
}

int64_t shared_bytes(const Plan& plan) {
  return kHeaderBytes + (plan.in_shared ? plan.scratch_bytes : 0);
}

int64_t merge_blocks(int64_t values) {
  return std::min((values + kMergeThreads - 1) / kMergeThreads, kMaxBlocks);
}

template <typename S>
cudaError_t sum_groups(const void* partial, void* grad, const BackwardArgs& b, int64_t outer, int64_t groups,
                       cudaStream_t stream) {
  return launch(sum_groups_kernel<S>, merge_blocks(outer * groups * b.plane()), kMergeThreads, 0, stream,
                static_cast<S*>(grad), static_cast<const StateOf<S>*>(partial), outer, groups, b.channels, b.plane());
}

}  // namespace

cudaError_t forward(const ForwardArgs& f, Plan plan, void* workspace, cudaStream_t stream) {
  plan.workspace = static_cast<unsigned char*>(workspace);
  return with_dtype(f.dtype, [&](auto zero) {
    using S = decltype(zero);
    const cudaError_t error = launch(plan.fits ? forward_kernel<S, true> : forward_kernel<S, false>, plan.blocks,
                                     plan.threads, shared_bytes(plan), stream, f, plan);
    if (error != cudaSuccess || !plan.split || f.merge == Merge::none) return error;
    const auto* planes = reinterpret_cast<const StateOf<S>*>(plan.workspace + plan.planes);
    return launch(merge_kernel<S>, merge_blocks(f.batch * f.channels * f.plane()), kMergeThreads, 0, stream, f, planes);
  });
}

cudaError_t backward(const BackwardArgs& b, Plan plan, void* workspace, cudaStream_t stream) {
  plan.workspace = static_cast<unsigned char*>(workspace);
  return with_dtype(b.dtype, [&](auto zero) {
    using S = decltype(zero);
    cudaError_t error = launch(plan.in_shared ? backward_kernel<S, true> : backward_kernel<S, false>, plan.blocks,
                               plan.threads, shared_bytes(plan), stream, b, plan);
    if (error == cudaSuccess && plan.split) {
      const auto* planes = reinterpret_cast<const StateOf<S>*>(plan.workspace + plan.planes);
      error =
          launch(add_kernel<S>, merge_blocks(b.batch * b.channels * b.plane()), kMergeThreads, 0, stream, b, planes);
    }
    const int64_t outer = b.batch * b.directions;
    if (error == cudaSuccess && b.gate_groups < b.channels) {
      error = sum_groups<S>(plan.workspace + plan.partial_gates, b.grad_gates, b, outer * 3, b.gate_groups, stream);
    }
    if (error == cudaSuccess && b.source && b.source_groups < b.channels) {
      error = sum_groups<S>(plan.workspace + plan.partial_source, b.grad_source, b, outer, b.source_groups, stream);
    }
    return error;
  });
}

}  // namespace cuda
}  // namespace spn
