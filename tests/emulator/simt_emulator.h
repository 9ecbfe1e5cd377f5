// A SIMT machine for csrc/cuda that replaces the CUDA part of csrc/cuda/simt.h. Each thread of a block is a fiber.
//
// Every memory access uses load, store or copy_async, in which the machine
//   - checks bounds, and that nothing is read before it is written;
//   - detects races: two threads access a byte, at least one writes, without a barrier between them (or in two blocks);
//   - counts sectors of 32 bytes in global memory and passes over the banks of shared memory, per access of a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define SPN_KERNEL(threads, blocks) void
#define SPN_DEVICE inline
#define SPN_SHARED(name) unsigned char* name = ::spn::emulator::shared_memory()
#define SPN_BARRIER(number) ::spn::emulator::block_barrier(__FILE__, number)
#define SPN_WARP_BARRIER(number) ::spn::emulator::warp_barrier(__FILE__, number)

#define threadIdx (::spn::emulator::thread_index())
#define blockIdx (::spn::emulator::block_index())
#define blockDim (::spn::emulator::block_size())
#define gridDim (::spn::emulator::grid_size())

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorLaunchFailure, cudaErrorLaunchOutOfResources };

namespace spn {
namespace emulator {

struct Index {
  unsigned x;
};

Index thread_index();
Index block_index();
Index block_size();
Index grid_size();
unsigned char* shared_memory();
void block_barrier(const char* file, int number);
void warp_barrier(const char* file, int number);

// The place of an access in the source: accesses of a warp's threads at the same place form one access.
struct Site {
  const char* file;
  int line;
};

void on_read(const void* address, size_t bytes, Site site);
void on_write(const void* address, size_t bytes, Site site);
void on_turn();
bool faulty(int number);  // called by the faults that mutations.py inserts into the source
void copy_async(void* shared, const void* global, size_t bytes, Site site);  // writes zeros if global is null
void copy_commit();
void copy_wait(int pending);
cudaError_t run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel);

}  // namespace emulator

namespace cuda {

// One iteration of a loop that all threads of a warp execute together, whether or not they access memory in it.
inline void next_turn() {
  emulator::on_turn();
}

template <typename T>
T load(const T* address, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulator::on_read(address, sizeof(T), {file, line});
  T value;
  std::memcpy(&value, address, sizeof(T));
  return value;
}

template <typename T>
void store(T* address, T value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulator::on_write(address, sizeof(T), {file, line});
  std::memcpy(static_cast<void*>(address), &value, sizeof(T));
}

template <typename T>
void store_whole(T* address, const T& value, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  store(address, value, file, line);
}

template <typename T>
T& to_publish(T* object, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulator::on_write(object, sizeof(T), {file, line});
  return *object;
}

template <typename T>
const T& published(const T* object, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  emulator::on_read(object, sizeof(T), {file, line});
  return *object;
}

template <int kBytes>
void copy_async(void* shared, const void* global, bool there, const char* file = __builtin_FILE(),
                int line = __builtin_LINE()) {
  emulator::copy_async(shared, there ? global : nullptr, kBytes, {file, line});
}

inline void copy_commit() {
  emulator::copy_commit();
}

template <int kPending>
void copy_wait() {
  emulator::copy_wait(kPending);
}

template <typename... Args>
cudaError_t launch(void (*kernel)(Args...), int64_t blocks, int threads, int64_t shared_bytes, cudaStream_t,
                   Args... args) {
  return emulator::run(blocks, threads, shared_bytes, [=] { kernel(args...); });
}

}  // namespace cuda
}  // namespace spn
