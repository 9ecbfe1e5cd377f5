// The kernels without torch, for compute-sanitizer: small shapes of every dtype, both passes, every way to plan them.
// Values do not matter here (tests/spn/test_cuda.py compares them): accesses, races and reads of unwritten memory do.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../csrc/cuda/propagate.h"

namespace {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Exactly as many bytes as asked for, so that what is beyond the end is beyond the allocation.
struct Memory {
  std::vector<void*> blocks;
  ~Memory() {
    for (void* block : blocks) cudaFree(block);
  }
  template <typename T = void>
  T* of(int64_t bytes, bool written) {
    void* block = nullptr;
    check(cudaMalloc(&block, bytes > 0 ? bytes : 1), "cudaMalloc");
    blocks.push_back(block);
    if (written) check(cudaMemset(block, 0x3c, bytes), "cudaMemset");  // about 1 in every dtype
    return static_cast<T*>(block);
  }
};

void run(const spn::Problem& p, const spn::cuda::Limits& limits) {
  using namespace spn;
  Memory memory;
  const int64_t value = cuda::value_bytes(p.dtype), state = cuda::state_bytes(p.dtype), plane = p.plane();
  const int64_t x_bytes = p.batch * p.channels * plane * value;
  const int64_t out_bytes = x_bytes * (p.merge == Merge::none ? p.directions : 1);
  const int64_t gate_bytes = p.batch * p.directions * 3 * p.gate_groups * plane * value;
  const int64_t source_bytes = p.batch * p.directions * p.source_groups * plane * value;

  ForwardArgs f{};
  static_cast<Problem&>(f) = p;
  f.x = memory.of(x_bytes, true);
  f.gates = memory.of(gate_bytes, true);
  f.source = p.source_groups ? memory.of(source_bytes, true) : nullptr;
  f.out = memory.of(out_bytes, false);
  f.winner = p.merge == Merge::max ? memory.of<uint8_t>(p.batch * p.channels * plane, false) : nullptr;
  f.checkpoints = memory.of(p.batch * p.channels * p.checkpoint_offset(p.directions) * state, false);
  cuda::Plan plan = cuda::plan_forward(f, limits);
  check(cuda::forward(f, plan, memory.of(plan.workspace_bytes, false), nullptr), "forward");

  BackwardArgs b{};
  static_cast<Problem&>(b) = p;
  b.grad = f.out;
  b.x = f.x;
  b.gates = f.gates;
  b.source = f.source;
  b.winner = f.winner;
  b.checkpoints = f.checkpoints;
  b.grad_x = memory.of(x_bytes, false);
  b.grad_gates = memory.of(gate_bytes, false);
  b.grad_source = p.source_groups ? memory.of(source_bytes, false) : nullptr;
  plan = cuda::plan_backward(b, limits);
  check(cuda::backward(b, plan, memory.of(plan.workspace_bytes, false), nullptr), "backward");
  check(cudaDeviceSynchronize(), "synchronize");

  // initcheck sees what no kernel wrote.
  std::vector<char> host(out_bytes + gate_bytes);
  check(cudaMemcpy(host.data(), f.out, out_bytes, cudaMemcpyDeviceToHost), "copy");
  check(cudaMemcpy(host.data(), b.grad_gates, gate_bytes, cudaMemcpyDeviceToHost), "copy");
}

}  // namespace

int main() {
  using namespace spn;
  // Room for all, segments, the least shared memory of a device, sweeps side by side, channels in parts.
  const cuda::Limits machines[] = {
      {99 << 10, 1, 1024}, {99 << 10, 1, 64}, {63 << 10, 1, 96}, {99 << 10, 1000, 1024}, {99 << 10, 8, 64}};
  int runs = 0;
  for (const cuda::Limits& limits : machines) {
    for (DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16}) {
      for (Merge merge : {Merge::max, Merge::none}) {
        Problem p{};
        p.dtype = dtype;
        p.normalize = merge == Merge::max ? Normalize::abs : Normalize::sigmoid;
        p.merge = merge;
        p.directions = 4;
        p.batch = 1;
        p.channels = 4;
        p.height = 37;
        p.width = merge == Merge::max ? 72 : 35;
        p.gate_groups = merge == Merge::max ? 4 : 1;
        p.source_groups = merge == Merge::max ? 0 : 2;
        run(p, limits);
        ++runs;
      }
    }
  }
  std::printf("%d problems ran, forward and backward\n", runs);
  return 0;
}
