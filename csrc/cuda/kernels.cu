// The kernel launches of a pass. This file does not depend on torch, so that the emulator can compile it unchanged.
#include "backward.h"
#include "forward.h"
#include "merge.h"
#include "propagate.h"

namespace spn {
namespace cuda {

namespace {

template <typename Visit>
cudaError_t with_dtype(DType dtype, Visit visit) {
#ifdef SPN_ONLY_FLOAT32  // for tests that compile many variants
  return visit(float{});
#else
  switch (dtype) {
    case DType::float32: return visit(float{});
    case DType::float64: return visit(double{});
    case DType::float16: return visit(torch::headeronly::Half{});
    default: return visit(torch::headeronly::BFloat16{});
  }
#endif
}

// Call visit(std::integral_constant<int, plan.piece>).
template <typename S, typename Visit>
cudaError_t with_piece(const Plan& plan, Visit visit) {
  if constexpr (kTogether<S> == 4) {
    if (plan.piece == 4) return visit(std::integral_constant<int, 4>{});
  }
  if (plan.piece == 2) return visit(std::integral_constant<int, 2>{});
  return visit(std::integral_constant<int, 1>{});
}

int64_t merge_blocks(int64_t values) {
  return std::min((values + kMergeThreads - 1) / kMergeThreads, kMaxBlocks);
}

// Set grad to the sum of `parts` partial gradients, for each of its planes in the chunk of this launch.
template <typename S>
cudaError_t sum_parts(const Problem& p, const Plan& plan, void* grad, int64_t partial, int64_t planes_of_sweep,
                      int64_t parts, cudaStream_t stream) {
  const int64_t slabs = p.batch * p.directions * planes_of_sweep * slabs_of(part_values(p, plan.chunks));
  return launch(sum_parts_kernel<S>, std::min(slabs, kMaxBlocks), kMergeThreads, 0, stream, p, plan,
                static_cast<S*>(grad), reinterpret_cast<const StateOf<S>*>(plan.workspace + partial), planes_of_sweep,
                parts);
}

// Launch the sweeps of a chunk, then add up the partial sums of their blocks.
template <typename S>
cudaError_t backward_chunk(const BackwardArgs& b, const Plan& plan, cudaStream_t stream) {
  cudaError_t error = with_piece<S>(plan, [&](auto piece) {
    return launch(backward_kernel<S, decltype(piece)::value>, plan.blocks, plan.threads,
                  kHeaderBytes + plan.scratch_bytes, stream, b, plan);
  });
  const int64_t gates = parts_of_gates(b, plan), source = parts_of_source(b, plan);
  if (error == cudaSuccess && gates > 1) {
    error = sum_parts<S>(b, plan, b.grad_gates, plan.partial_gates, 3 * b.gate_groups, gates, stream);
  }
  if (error == cudaSuccess && source > 1) {
    error = sum_parts<S>(b, plan, b.grad_source, plan.partial_source, b.source_groups, source, stream);
  }
  return error;
}

}  // namespace

cudaError_t forward(const ForwardArgs& f, Plan plan, void* workspace, cudaStream_t stream) {
  if (plan.threads == 0) return cudaErrorLaunchOutOfResources;
  plan.workspace = static_cast<unsigned char*>(workspace);
  return with_dtype(f.dtype, [&](auto zero) {
    using S = decltype(zero);
    const cudaError_t error = with_piece<S>(plan, [&](auto piece) {
      return launch(forward_kernel<S, decltype(piece)::value>, plan.blocks, plan.threads,
                    kHeaderBytes + plan.scratch_bytes, stream, f, plan);
    });
    if (error != cudaSuccess || !plan.split || f.merge == Merge::none) return error;
    const auto* planes = reinterpret_cast<const StateOf<S>*>(plan.workspace + plan.planes);
    return launch(merge_kernel<S>, merge_blocks(f.batch * f.channels * f.plane()), kMergeThreads, 0, stream, f, planes);
  });
}

cudaError_t backward(const BackwardArgs& b, Plan plan, void* workspace, cudaStream_t stream) {
  if (plan.threads == 0) return cudaErrorLaunchOutOfResources;
  plan.workspace = static_cast<unsigned char*>(workspace);
  return with_dtype(b.dtype, [&](auto zero) {
    using S = decltype(zero);
    cudaError_t error = cudaSuccess;
    for (plan.chunk = plan.chunks - 1; plan.chunk >= 0 && error == cudaSuccess; --plan.chunk) {
      error = backward_chunk<S>(b, plan, stream);
    }
    if (error == cudaSuccess && plan.split && b.grad_x) {
      const auto* planes = reinterpret_cast<const StateOf<S>*>(plan.workspace + plan.planes);
      error =
          launch(add_kernel<S>, merge_blocks(b.batch * b.channels * b.plane()), kMergeThreads, 0, stream, b, planes);
    }
    return error;
  });
}

}  // namespace cuda
}  // namespace spn
