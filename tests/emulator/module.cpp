// Runs csrc/cuda/kernels.cu on the emulator, with numpy arrays as inputs and outputs. Arrays are contiguous; bfloat16
// is passed as uint16. The Python side is in kernel_emulator.py.
#include <pybind11/numpy.h>

#include <map>
#include <new>

#include "emulator.h"
#include "faults.h"
#include "python.h"

namespace py = pybind11;

namespace spn {
namespace {

void* data_of(const py::dict& arrays, const char* name, bool written) {
  if (!arrays.contains(name)) return nullptr;
  py::array array = arrays[name].cast<py::array>();
  emulator::add_buffer(name, array.data(), array.nbytes(), written, !written);
  return const_cast<void*>(array.data());
}

py::dict result(const cuda::Choice& choice) {
  const emulator::Counts& c = emulator::counts();
  py::dict d;
  d["error"] = emulator::error();
  d["unwritten"] = emulator::unwritten();
  d["barriers"] = emulator::barriers_seen();
  d["sectors_read"] = c.sectors_read;
  d["sectors_written"] = c.sectors_written;
  d["bytes_read"] = c.bytes_read;
  d["bytes_written"] = c.bytes_written;
  d["shared_accesses"] = c.shared_accesses;
  d["shared_passes"] = c.shared_passes;
  d["block_barriers"] = c.block_barriers;
  d["warp_barriers"] = c.warp_barriers;
  d["launches"] = c.launches;
  d["blocks"] = c.blocks;
  describe(choice, d);
  return d;
}

emulator::Options options_of(const py::dict& d) {
  emulator::Options options;
  options.seed = d["seed"].cast<uint64_t>();
  options.check = d["check"].cast<bool>();
  options.count = d["count"].cast<bool>();
  options.without_barrier = d["without_barrier"].cast<std::string>();
  options.fault = d["fault"].cast<int>();
  return options;
}

template <typename Args, typename Choose, typename Launch>
py::dict run(Args args, const py::dict& options, Choose choose, Launch launch) {
  const cuda::Choice choice = choose(args, limits_of(options));
  const cuda::Plan& plan = choice.plan;
  // Poisoned, and of the exact size, so that accesses beyond its end are detected.
  constexpr std::align_val_t kAlignment{256};
  void* workspace = ::operator new(plan.workspace_bytes, kAlignment);
  std::memset(workspace, 0xFF, plan.workspace_bytes);
  emulator::add_buffer("workspace", workspace, plan.workspace_bytes, false, true);
  const cudaError_t error = launch(args, plan, workspace, nullptr);
  ::operator delete(workspace, kAlignment);
  py::dict d = result(choice);
  if (error == cudaErrorLaunchOutOfResources) d["error"] = "too little shared memory";
  return d;
}

py::dict forward(const py::dict& problem, const py::dict& in, const py::dict& out, const py::dict& options) {
  emulator::reset(options_of(options));
  ForwardArgs f;
  static_cast<Problem&>(f) = problem_of(problem);
  f.x = data_of(in, "x", true);
  f.gates = data_of(in, "gates", true);
  f.source = data_of(in, "source", true);
  f.out = data_of(out, "out", false);
  f.winner = static_cast<uint8_t*>(data_of(out, "winner", false));
  f.checkpoints = data_of(out, "checkpoints", false);
  return run(f, options, cuda::choose_forward, cuda::forward);
}

py::dict backward(const py::dict& problem, const py::dict& in, const py::dict& out, const py::dict& options) {
  emulator::reset(options_of(options));
  BackwardArgs b;
  static_cast<Problem&>(b) = problem_of(problem);
  b.grad = data_of(in, "grad", true);
  b.x = data_of(in, "x", true);
  b.gates = data_of(in, "gates", true);
  b.source = data_of(in, "source", true);
  b.winner = static_cast<const uint8_t*>(data_of(in, "winner", true));
  b.checkpoints = data_of(in, "checkpoints", true);
  b.grad_x = data_of(out, "grad_x", false);
  b.grad_gates = data_of(out, "grad_gates", false);
  b.grad_source = data_of(out, "grad_source", false);
  return run(b, options, cuda::choose_backward, cuda::backward);
}

// Runs a kernel of faults.h on `blocks` blocks of 64 threads with `values` output ints; returns its values and error.
py::tuple fault(const std::string& name, int blocks, int values, uint64_t seed) {
  const std::map<std::string, void (*)(int*)> kernels = {
      {"no barrier", faults::neighbour<0>},
      {"warp barrier only", faults::neighbour<1>},
      {"block barrier", faults::neighbour<2>},
      {"uninitialised", faults::uninitialised},
      {"beyond the end", faults::beyond_the_end},
      {"beyond shared", faults::beyond_shared},
      {"blocks collide", faults::blocks_collide},
      {"diverges", faults::diverges},
      {"misaligned", faults::misaligned},
      {"copy waited for", faults::copies<true>},
      {"copy not waited for", faults::copies<false>},
      {"copy left behind", faults::leaves_a_copy},
      {"two copies", faults::two_copies},
      {"forgets to write", faults::forgets_to_write},
  };
  emulator::Options options;
  options.seed = seed;
  emulator::reset(options);
  std::vector<int> out(values);
  emulator::add_buffer("out", out.data(), out.size() * sizeof(int), false, true);
  cuda::launch(kernels.at(name), blocks, 64, 64 * sizeof(int), nullptr, out.data());
  const std::string unwritten = emulator::unwritten();
  return py::make_tuple(out, emulator::error() + (unwritten.empty() ? "" : "not written: " + unwritten));
}

}  // namespace
}  // namespace spn

PYBIND11_MODULE(spn_emulator, m) {
  m.def("forward", &spn::forward);
  m.def("backward", &spn::backward);
  m.def("fault", &spn::fault);
}
