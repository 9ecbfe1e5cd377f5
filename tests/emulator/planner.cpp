// The planner alone: host code, which compiles in seconds instead of the minutes that the kernels take.
#include <array>

#include "python.h"

namespace py = pybind11;

namespace spn {
namespace {

// Addresses that are never dereferenced: a plan depends on their alignment and on whether an array exists.
struct Addresses {
  int64_t offset;  // storage offset of every array, in values
  int64_t value_bytes;

  template <typename T = void>
  T* operator()(bool there = true) const {
    constexpr uintptr_t kStorage = 256;
    return there ? reinterpret_cast<T*>(kStorage + offset * value_bytes) : nullptr;
  }
};

py::dict described(const cuda::Choice& choice) {
  py::dict d;
  describe(choice, d);
  d["blocks"] = choice.plan.blocks;
  return d;
}

py::dict plan_forward(const py::dict& problem, const py::dict& limits, bool save, int64_t offset) {
  ForwardArgs f;
  static_cast<Problem&>(f) = problem_of(problem);
  const Addresses address{offset, cuda::value_bytes(f.dtype)}, allocated{0, 1};
  f.x = address();
  f.gates = address();
  f.source = address(f.source_groups > 0);
  f.out = allocated();
  f.winner = allocated.operator()<uint8_t>(save && f.merge == Merge::max);
  f.checkpoints = allocated(save);
  return described(cuda::choose_forward(f, limits_of(limits)));
}

py::dict plan_backward(const py::dict& problem, const py::dict& limits, const std::array<bool, 3>& wanted,
                       int64_t offset) {
  BackwardArgs b;
  static_cast<Problem&>(b) = problem_of(problem);
  const Addresses address{offset, cuda::value_bytes(b.dtype)}, allocated{0, 1};
  b.grad = allocated();
  b.x = address();
  b.gates = address();
  b.source = address(b.source_groups > 0);
  b.winner = allocated.operator()<uint8_t>(b.merge == Merge::max);
  b.checkpoints = allocated();
  b.grad_x = allocated(wanted[0]);
  b.grad_gates = allocated(wanted[1]);
  b.grad_source = allocated(wanted[2] && b.source_groups > 0);
  return described(cuda::choose_backward(b, limits_of(limits)));
}

}  // namespace
}  // namespace spn

PYBIND11_MODULE(spn_planner, m) {
  m.def("forward", &spn::plan_forward);
  m.def("backward", &spn::plan_backward);
}
