// The machine primitives of the kernels: memory accesses, asynchronous copies, barriers and launches.
//
// All kernel code uses these few names, so that the emulator in tests/emulator can run the same source on a CPU, check
// every access and remove single barriers.
#pragma once

namespace spn {
namespace cuda {

// Neighbouring values that one memory instruction moves.
template <typename V, int kCount>
struct alignas(kCount * sizeof(V)) Pack {
  V v[kCount];
};

}  // namespace cuda
}  // namespace spn

#ifdef SPN_EMULATOR
#include "simt_emulator.h"
#else

#include <cuda_runtime.h>

#include <cstdint>
#include <mutex>
#include <set>
#include <utility>

// A kernel with at most `threads` threads per block, compiled so that a multiprocessor can hold `blocks` blocks.
#define SPN_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define SPN_DEVICE __device__ __forceinline__
#define SPN_SHARED(name) extern __shared__ __align__(16) unsigned char name[]

// Barriers are numbered: the tests remove each of them in turn and expect an error.
#define SPN_BARRIER(number) __syncthreads()
#define SPN_WARP_BARRIER(number) __syncwarp()

namespace spn {
namespace cuda {

// For the emulator: marks one iteration of a loop that all threads of a warp execute together.
SPN_DEVICE void next_turn() {}

template <typename T>
SPN_DEVICE T load(const T* address) {
  return *address;
}

template <typename T>
SPN_DEVICE void store(T* address, T value) {
  *address = value;
}

// Store all of `value` with one instruction. The compiler splits some stores of several values, and a warp would then
// write each memory sector once per part.
template <typename T>
SPN_DEVICE void store_whole(T* address, const T& value) {
  constexpr int kBytes = static_cast<int>(sizeof(T));
  static_assert(kBytes == 1 || kBytes == 2 || kBytes == 4 || kBytes == 8 || kBytes == 16,
                "the device can store 1, 2, 4, 8 or 16 bytes");
  if constexpr (kBytes >= 4) {
    unsigned words[kBytes / 4];
    memcpy(words, &value, kBytes);
    if constexpr (kBytes == 16) {
      asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(address), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                   "r"(words[3])
                   : "memory");
    } else if constexpr (kBytes == 8) {
      asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(address), "r"(words[0]), "r"(words[1]) : "memory");
    } else {
      asm volatile("st.b32 [%0], %1;" ::"l"(address), "r"(words[0]) : "memory");
    }
  } else if constexpr (kBytes == 2) {
    unsigned short bits;
    memcpy(&bits, &value, kBytes);
    asm volatile("st.b16 [%0], %1;" ::"l"(address), "h"(bits) : "memory");
  } else {
    *address = value;
  }
}

// One thread fills an object in shared memory. After a barrier, all threads of its block read it.
template <typename T>
SPN_DEVICE T& to_publish(T* object) {
  return *object;
}

template <typename T>
SPN_DEVICE const T& published(const T* object) {
  return *object;
}

// Copy kBytes from global to shared memory, or write zeros if `there` is false. Other threads may read them after
// copy_wait and a barrier. L2::128B makes the second-level cache fetch whole 128-byte cache lines: a row of a
// horizontal sweep's tile is a part of a cache line, and the next tile needs the rest.
template <int kBytes>
SPN_DEVICE void copy_async(void* shared, const void* global, bool there) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16, "the device can copy 4, 8 or 16 bytes asynchronously");
#if __CUDA_ARCH__ >= 800
  const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  const int bytes = there ? kBytes : 0;
  if constexpr (kBytes == 16) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], %2, %3;" ::"r"(address), "l"(global), "n"(kBytes),
                 "r"(bytes)
                 : "memory");
  }
#else
  using Words = Pack<uint32_t, kBytes / 4>;
  *static_cast<Words*>(shared) = there ? *static_cast<const Words*>(global) : Words{};
#endif
}

SPN_DEVICE void copy_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until at most kPending of the committed copy groups of this thread are in flight.
template <int kPending>
SPN_DEVICE void copy_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// Return the error and clear it in the CUDA runtime. Otherwise the next caller would receive it.
inline cudaError_t taken(cudaError_t error) {
  if (error != cudaSuccess) cudaGetLastError();
  return error;
}

// Allow blocks of the kernel to use all shared memory of the current device. This is set once, to the maximum instead
// of the amount that one launch needs, because another thread may be about to launch the kernel with more.
inline cudaError_t allow_shared_memory(const void* kernel) {
  static std::mutex mutex;
  static std::set<std::pair<const void*, int> > allowed;
  int device = 0, bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  const std::lock_guard<std::mutex> lock(mutex);
  if (error != cudaSuccess || allowed.count({kernel, device})) return error;
  error = cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  // Several blocks share a multiprocessor only if the first-level cache leaves them enough shared memory.
  if (error == cudaSuccess) {
    error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  if (error == cudaSuccess) allowed.insert({kernel, device});
  return error;
}

template <typename... Args>
cudaError_t launch(void (*kernel)(Args...), int64_t blocks, int threads, int64_t shared_bytes, cudaStream_t stream,
                   Args... args) {
  const void* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > 0) {
    const cudaError_t error = allow_shared_memory(function);
    if (error != cudaSuccess) return taken(error);
  }
  void* pointers[] = {&args...};
  return taken(cudaLaunchKernel(function, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
                                pointers, static_cast<size_t>(shared_bytes), stream));
}

}  // namespace cuda
}  // namespace spn

#endif  // SPN_EMULATOR
