// GPUs for which this library holds no code: which they are, and how the PyTorch reference stands in for the kernels.
//
// The library holds code for the architectures that it was built for, and PTX for newer ones at most. Whether a device
// can run any of it is known only when the device is used: importing the package must not initialise CUDA.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace spn {
namespace cuda {

// A kernel of the same architectures as every other.
static __global__ void empty_kernel() {}

// Why no kernel of this library runs on the current device, or "".
inline std::string ask_missing_code() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&empty_kernel));
  if (error != cudaSuccess) cudaGetLastError();  // the next launch would report it
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    // PTX that the driver does not compile.
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: return cudaGetErrorString(error);
    default: return "";  // any other error is for the launch to report
  }
}

// The same for any device, which answers once.
inline const std::string& missing_code(int32_t device) {
  static std::mutex mutex;
  static std::map<int32_t, std::string> answers;  // stay where they are when others come
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = answers.find(device);
  if (found != answers.end()) return found->second;
  const torch::stable::accelerator::DeviceGuard guard(device);
  return answers.emplace(device, ask_missing_code()).first->second;
}

// Calls an operator with the arguments and results of spn::propagate or spn::propagate_backward.
template <typename... Args>
std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> call_reference(const char* name,
                                                                                               const Args&... args) {
  using torch::stable::Tensor;
  std::array<StableIValue, sizeof...(args)> stack{torch::stable::detail::from(args)...};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(name, "", stack.data(), TORCH_ABI_VERSION));
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1]),
          torch::stable::detail::to<Tensor>(stack[2])};
}

}  // namespace cuda
}  // namespace spn
