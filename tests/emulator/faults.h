// Small kernels with one fault each, which the emulator must detect.
#pragma once

#include "simt_emulator.h"

namespace spn {
namespace faults {

// Each thread writes its value and reads its neighbour's. kBarrier: 0 for none, 1 for the warp, 2 for the block.
template <int kBarrier>
inline void neighbour(int* out) {
  int* shared = reinterpret_cast<int*>(emulator::shared_memory());
  const int thread = threadIdx.x, threads = blockDim.x;
  cuda::store(shared + thread, thread);
  if (kBarrier == 1) SPN_WARP_BARRIER(0);
  if (kBarrier == 2) SPN_BARRIER(0);
  cuda::store(out + blockIdx.x * threads + thread, cuda::load(shared + (thread + 1) % threads));
}

inline void uninitialised(int* out) {
  cuda::store(out + threadIdx.x, cuda::load(reinterpret_cast<int*>(emulator::shared_memory()) + threadIdx.x));
}

inline void beyond_the_end(int* out) {
  cuda::store(out + threadIdx.x + 1, 0);
}

inline void beyond_shared(int* out) {
  cuda::store(reinterpret_cast<int*>(emulator::shared_memory()) + threadIdx.x + 1, 0);
  cuda::store(out + threadIdx.x, 0);
}

inline void blocks_collide(int* out) {
  cuda::store(out + threadIdx.x, 0);
}

inline void diverges(int* out) {
  if (threadIdx.x < 32) SPN_BARRIER(0);
  cuda::store(out + threadIdx.x, 0);
}

inline void misaligned(int* out) {
  cuda::store(out + threadIdx.x, 0);
  if (threadIdx.x == 0) cuda::store(reinterpret_cast<int*>(reinterpret_cast<char*>(out) + 2), 0);
}

// kWait: whether the thread waits for its copy before it reads the value.
template <bool kWait>
inline void copies(int* out) {
  int* shared = reinterpret_cast<int*>(emulator::shared_memory());
  cuda::store(out + threadIdx.x, 7);
  cuda::copy_async<4>(shared + threadIdx.x, out + threadIdx.x, true);
  cuda::copy_commit();
  if (kWait) cuda::copy_wait<0>();
  cuda::store(out + threadIdx.x, cuda::load(shared + threadIdx.x));
}

inline void leaves_a_copy(int* out) {
  cuda::store(out + threadIdx.x, 7);
  cuda::copy_async<4>(reinterpret_cast<int*>(emulator::shared_memory()) + threadIdx.x, out + threadIdx.x, true);
}

// The order of the two copies is undefined.
inline void two_copies(int* out) {
  int* shared = reinterpret_cast<int*>(emulator::shared_memory());
  for (int i = 0; i < 2; ++i) {
    cuda::copy_async<4>(shared + threadIdx.x, out + threadIdx.x, false);
    cuda::copy_commit();
  }
  cuda::copy_wait<0>();
  cuda::store(out + threadIdx.x, cuda::load(shared + threadIdx.x));
}

inline void forgets_to_write(int* out) {
  if (threadIdx.x > 0) cuda::store(out + threadIdx.x, 0);
}

}  // namespace faults
}  // namespace spn
