// What a device offers to plans, as it says itself.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>

#include "plan.h"

namespace spn {
namespace cuda {

constexpr double kCopyEfficiency = 0.88;    // assumed: of the memory's bandwidth, what a copy reaches
constexpr double kUsualBytesPerClock = 16;  // of a multiprocessor, where the device does not say

inline cudaError_t read_limits(int device, Limits& limits) {
  static std::mutex mutex;
  static std::map<int, Limits> known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = known.find(device); found != known.end()) {
    limits = found->second;
    return cudaSuccess;
  }
  cudaError_t error = cudaSuccess;
  const auto ask = [&](cudaDeviceAttr what) {
    int value = 0;
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&value, what, device);
    return value;
  };
  limits.shared_bytes = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin) - kHeaderBytes;
  limits.multiprocessors = ask(cudaDevAttrMultiProcessorCount);
  limits.threads = ask(cudaDevAttrMaxThreadsPerBlock);
  limits.shared_of_multiprocessor = ask(cudaDevAttrMaxSharedMemoryPerMultiprocessor);
  limits.shared_reserved = ask(cudaDevAttrReservedSharedMemoryPerBlock);
  const double clock = ask(cudaDevAttrClockRate), memory_clock = ask(cudaDevAttrMemoryClockRate);
  const double bytes = ask(cudaDevAttrGlobalMemoryBusWidth) / 8;
  limits.bytes_per_clock = clock > 0 && memory_clock > 0 && bytes > 0
                               ? kCopyEfficiency * 2 * memory_clock * bytes / clock  // two transfers a clock
                               : kUsualBytesPerClock * limits.multiprocessors;
  if (error == cudaSuccess) known[device] = limits;
  return error;
}

}  // namespace cuda
}  // namespace spn
