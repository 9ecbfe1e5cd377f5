// The limits of a device that plans depend on, as reported by the device.
#pragma once

#include <cuda_runtime.h>

#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "plan.h"

namespace spn {
namespace cuda {

constexpr double kCopyEfficiency = 0.88;    // assumed: share of the memory bandwidth that a copy reaches
constexpr double kUsualBytesPerClock = 16;  // per multiprocessor, if the device does not report it

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
                               ? kCopyEfficiency * 2 * memory_clock * bytes / clock  // two transfers per clock
                               : kUsualBytesPerClock * limits.multiprocessors;
  if (error == cudaSuccess) known[device] = limits;
  return error;
}

// Format the limits that plans use and the clock in kilohertz as "name=value ...". Benchmarks predict times from them.
inline cudaError_t describe_limits(int device, std::string& text) {
  Limits limits;
  int kilohertz = 0;
  cudaError_t error = read_limits(device, limits);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, device);
  if (error != cudaSuccess) return error;
  std::ostringstream stream;
  stream << "shared_bytes=" << limits.shared_bytes << " multiprocessors=" << limits.multiprocessors
         << " threads=" << limits.threads << " shared_of_multiprocessor=" << limits.shared_of_multiprocessor
         << " shared_reserved=" << limits.shared_reserved << " bytes_per_clock=" << limits.bytes_per_clock
         << " least_room=" << limits.least_room << " launch_cycles=" << limits.launch_cycles
         << " kilohertz=" << kilohertz;
  text = stream.str();
  return cudaSuccess;
}

}  // namespace cuda
}  // namespace spn
