// The CUDA operators: plan the pass, allocate, launch on the current stream and register with torch.
#include "propagate.h"

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>

#include "../torch_args.h"
#include "fallback.h"
#include "limits.h"

namespace spn {

namespace {

void check(cudaError_t error, const char* what) {
  STD_TORCH_CHECK(cuda::taken(error) == cudaSuccess, what, ": ", cudaGetErrorString(error));
}

// Return the index of the device that holds all tensors. Torch dispatches to these operators if any tensor is on a GPU,
// and the kernels follow plain pointers, so each tensor must be checked.
int32_t device_of(const Tensor& x, std::initializer_list<std::pair<const char*, const Tensor*>> others) {
  STD_TORCH_CHECK(x.is_cuda(), "x must be on the same GPU as the other tensors");
  const int32_t device = x.get_device_index();
  for (const auto& [name, tensor] : others) {
    STD_TORCH_CHECK(!tensor || (tensor->is_cuda() && tensor->get_device_index() == device), name,
                    " must be on x's device cuda:", device);
  }
  return device;
}

cudaStream_t current_stream(int32_t device) {
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

cuda::Limits limits_of(int32_t device) {
  cuda::Limits limits;
  check(cuda::read_limits(device, limits), "reading the limits of the device");
  return limits;
}

// Lines and positions are counted in 32 bits, offsets in 64.
void check_sides(const Problem& p) {
  constexpr int64_t kLongest = (int64_t{1} << 31) - 4096;
  STD_TORCH_CHECK(p.height < kLongest && p.width < kLongest,
                  "height and width of x must be less than 2^31 - 4096 for the CUDA kernels");
}

// Torch's allocator reuses freed memory on this stream only, so the workspace may go out of scope while the kernels
// still run.
Tensor workspace_of(const cuda::Plan& plan, const Tensor& like) {
  return torch::stable::new_empty(like, std::vector<int64_t>{plan.workspace_bytes}, ScalarType::Byte);
}

std::tuple<Tensor, Tensor, Tensor> propagate(const Tensor x, const Tensor gates, const std::optional<Tensor> source,
                                             std::string direction, std::string normalize, std::string merge,
                                             bool save_winner, bool save_checkpoints, int64_t restart_every) {
  const int32_t device = device_of(x, {{"gates", &gates}, {"source", source ? &*source : nullptr}});
  const torch::stable::accelerator::DeviceGuard guard(device);
  if (!cuda::missing_code(device).empty()) {
    return cuda::call_reference("spn::reference_propagate", x, gates, source, direction, normalize, merge, save_winner,
                                save_checkpoints, restart_every);
  }
  ForwardCall call(x, gates, source, direction, normalize, merge, save_winner, save_checkpoints, restart_every);
  if (!call.empty()) {
    check_sides(call.args);
    const cuda::Plan plan = cuda::plan_forward(call.args, limits_of(device));
    Tensor workspace = workspace_of(plan, call.x);
    check(cuda::forward(call.args, plan, workspace.mutable_data_ptr(), current_stream(device)), "spn::propagate");
  }
  return call.results();
}

std::tuple<Tensor, Tensor, Tensor> propagate_backward(const Tensor grad, const Tensor x, const Tensor gates,
                                                      const std::optional<Tensor> source, const Tensor winner,
                                                      const Tensor checkpoints, std::string direction,
                                                      std::string normalize, std::string merge, bool for_x,
                                                      bool for_gates, bool for_source, int64_t restart_every) {
  const int32_t device = device_of(x, {{"gates", &gates},
                                       {"source", source ? &*source : nullptr},
                                       {"grad", &grad},
                                       {"winner", &winner},
                                       {"checkpoints", &checkpoints}});
  const torch::stable::accelerator::DeviceGuard guard(device);
  if (!cuda::missing_code(device).empty()) {
    return cuda::call_reference("spn::reference_propagate_backward", grad, x, gates, source, winner, checkpoints,
                                direction, normalize, merge, for_x, for_gates, for_source, restart_every);
  }
  BackwardCall call(grad, x, gates, source, winner, checkpoints, direction, normalize, merge, for_x, for_gates,
                    for_source, restart_every);
  if (!call.empty()) {
    check_sides(call.args);
    const cuda::Plan plan = cuda::plan_backward(call.args, limits_of(device));
    Tensor workspace = workspace_of(plan, call.x);
    check(cuda::backward(call.args, plan, workspace.mutable_data_ptr(), current_stream(device)),
          "spn::propagate_backward");
  }
  return call.results();
}

std::string cuda_limits(int64_t device) {
  std::string text;
  check(cuda::describe_limits(static_cast<int>(device), text), "spn::cuda_limits");
  return text;
}

std::string cuda_missing_code(int64_t device) {
  return cuda::missing_code(static_cast<int32_t>(device));
}

}  // namespace

}  // namespace spn

STABLE_TORCH_LIBRARY_IMPL(spn, CUDA, m) {
  m.impl("propagate", TORCH_BOX(&spn::propagate));
  m.impl("propagate_backward", TORCH_BOX(&spn::propagate_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spn, CompositeExplicitAutograd, m) {
  m.impl("cuda_missing_code", TORCH_BOX(&spn::cuda_missing_code));
  m.impl("cuda_limits", TORCH_BOX(&spn::cuda_limits));
}
