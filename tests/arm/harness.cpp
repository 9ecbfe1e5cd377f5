// The CPU kernels without torch: one propagation, forward and backward, from standard input to standard output.
//
//     in   the numbers that read_call() reads, 64 bits each, then x, gates, source if there is one, and grad
//     out  out, winner if the merge is "max", then the requested gradients of x, gates and source
//
// If no gradient is requested, the forward pass saves nothing for it. Arrays are contiguous, with the shapes of
// problem.h. Values that the kernels do not write stay NaN.
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "../../csrc/cpu/propagate.h"
#include "../../csrc/cpu/scratch.h"
#include "../../csrc/cpu/tasks.h"

namespace spn {

// One call per chunk, as with many threads.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  for (int64_t begin = 0; begin < count; begin += grain) body(begin, std::min(begin + grain, count));
}

void* scratch_bytes(Slot slot, size_t bytes) {
  constexpr size_t kLine = 64;
  static std::vector<unsigned char> buffers[static_cast<int>(Slot::count)];
  std::vector<unsigned char>& buffer = buffers[static_cast<int>(slot)];
  if (buffer.size() < bytes + 3 * kLine) buffer.assign(bytes + 3 * kLine, 0xff);
  const auto begin = reinterpret_cast<uintptr_t>(buffer.data());
  return reinterpret_cast<void*>((begin / kLine + 2) * kLine);
}

void release_large_scratch() {}

}  // namespace spn

namespace {

using Bytes = std::vector<unsigned char>;

void read(void* to, size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) == bytes) return;
  std::fputs("harness: the input is too short\n", stderr);
  std::exit(2);
}

Bytes read_bytes(int64_t bytes) {
  Bytes read_ones(bytes);
  read(read_ones.data(), read_ones.size());
  return read_ones;
}

void write(const Bytes& bytes) {
  std::fwrite(bytes.data(), 1, bytes.size(), stdout);
}

int64_t read_number() {
  int64_t number;
  read(&number, sizeof(number));
  return number;
}

struct Call {
  spn::Problem problem{};
  bool separate;  // whether each sweep is a separate task
  bool for_x, for_gates, for_source;

  bool trains() const { return for_x || for_gates || for_source; }
};

Call read_call() {
  Call call;
  spn::Problem& p = call.problem;
  p.dtype = static_cast<spn::DType>(read_number());
  p.normalize = static_cast<spn::Normalize>(read_number());
  p.merge = static_cast<spn::Merge>(read_number());
  p.first_direction = static_cast<int>(read_number());
  p.directions = static_cast<int>(read_number());
  for (int64_t* size :
       {&p.batch, &p.channels, &p.height, &p.width, &p.gate_groups, &p.source_groups, &p.restart_every}) {
    *size = read_number();
  }
  for (bool* flag : {&call.separate, &call.for_x, &call.for_gates, &call.for_source}) *flag = read_number() != 0;
  return call;
}

int64_t bytes_of(spn::DType dtype) {
  switch (dtype) {
    case spn::DType::float64: return 8;
    case spn::DType::float32: return 4;
    default: return 2;
  }
}

}  // namespace

int main() {
  const Call call = read_call();
  const spn::Problem& p = call.problem;
  const int64_t value = bytes_of(p.dtype), state = p.dtype == spn::DType::float64 ? 8 : 4;
  const int64_t maps = p.batch * p.channels * p.plane(),
                outs = p.merge == spn::Merge::none ? p.directions * maps : maps;
  const Bytes x = read_bytes(value * maps);
  const Bytes gates = read_bytes(value * p.batch * p.directions * 3 * p.gate_groups * p.plane());
  const Bytes source = read_bytes(value * p.batch * p.directions * p.source_groups * p.plane());
  const Bytes grad = read_bytes(value * outs);

  Bytes out(value * outs, 0xff), winner(call.trains() && p.merge == spn::Merge::max ? maps : 0, 0xff);
  Bytes checkpoints(state * p.batch * p.channels * p.checkpoint_offset(p.directions), 0xff);
  Bytes separate(call.separate ? state * p.directions * maps : 0, 0xff);
  void* sweeps = call.separate ? separate.data() : nullptr;
  Bytes grad_x(call.for_x ? x.size() : 0, 0xff), grad_gates(call.for_gates ? gates.size() : 0, 0xff);
  Bytes grad_source(call.for_source ? source.size() : 0, 0xff);

  spn::ForwardArgs forward{p};
  forward.x = x.data();
  forward.gates = gates.data();
  forward.source = p.source_groups ? source.data() : nullptr;
  forward.out = out.data();
  forward.winner = winner.empty() ? nullptr : winner.data();
  forward.checkpoints = call.trains() ? checkpoints.data() : nullptr;
  spn::baseline::kernels.forward(forward, p.merge == spn::Merge::none ? nullptr : sweeps);

  spn::BackwardArgs backward{p};
  backward.grad = grad.data();
  backward.x = forward.x;
  backward.gates = forward.gates;
  backward.source = forward.source;
  backward.winner = winner.data();
  backward.checkpoints = checkpoints.data();
  backward.grad_x = call.for_x ? grad_x.data() : nullptr;
  backward.grad_gates = call.for_gates ? grad_gates.data() : nullptr;
  backward.grad_source = call.for_source ? grad_source.data() : nullptr;
  if (call.trains()) spn::baseline::kernels.backward(backward, sweeps);

  for (const Bytes* result : {&out, &winner, &grad_x, &grad_gates, &grad_source}) write(*result);
  return std::fflush(stdout) == 0 ? 0 : 1;
}
