// The fallback for GPUs that this library has no code for: detects them, and calls the PyTorch reference implementation
// instead of the kernels.
//
// The library contains code for the architectures that it was built for, and at most PTX for newer ones. Whether a
// device can run it is only known when the device is used, because importing the package must not initialise CUDA.
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

// A kernel that is compiled for the same architectures as all other kernels.
static __global__ void empty_kernel() {}

// Return why no kernel of this library runs on the current device, or "".
inline std::string ask_missing_code() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(&empty_kernel));
  if (error != cudaSuccess) cudaGetLastError();  // clear it: the next launch would report it
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    // The driver cannot compile the PTX:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: return cudaGetErrorString(error);
    default: return "";  // the launch reports any other error
  }
}

// The same for any device. The answer is cached.
inline const std::string& missing_code(int32_t device) {
  static std::mutex mutex;
  static std::map<int32_t, std::string> answers;  // std::map: references stay valid when entries are added
  const std::lock_guard<std::mutex> lock(mutex);
  const auto found = answers.find(device);
  if (found != answers.end()) return found->second;
  const torch::stable::accelerator::DeviceGuard guard(device);
  return answers.emplace(device, ask_missing_code()).first->second;
}

// Call an operator that has the arguments and results of spn::propagate or spn::propagate_backward.
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
