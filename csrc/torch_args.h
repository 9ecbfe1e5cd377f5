// The torch side of the operators, shared by all backends: converts the arguments of the schemas to the structs of
// problem.h.
//
//   propagate(Tensor x, Tensor gates, Tensor? source, str direction, str normalize, str merge,
//             bool save_winner, bool save_checkpoints, int restart_every=0)
//       -> (Tensor out, Tensor winner, Tensor checkpoints)
//   propagate_backward(Tensor grad, Tensor x, Tensor gates, Tensor? source, Tensor winner, Tensor checkpoints,
//                      str direction, str normalize, str merge, bool for_x, bool for_gates, bool for_source,
//                      int restart_every=0)
//       -> (Tensor grad_x, Tensor grad_gates, Tensor grad_source)
//
// Results that are not requested are empty tensors.
//
// spn/_ops.py defines the schemas and spn/functional.py validates the arguments. A wrong value that arrives here is a
// bug in spn.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "problem.h"

namespace spn {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline int index_of(const std::string& value, std::initializer_list<const char*> names, const char* argument) {
  int index = 0;
  for (const char* name : names) {
    if (value == name) return index;
    ++index;
  }
  STD_TORCH_CHECK(false, argument, " is unknown: ", value);
  return -1;
}

inline DType dtype_of(ScalarType type) {
  switch (type) {
    case ScalarType::Float: return DType::float32;
    case ScalarType::Double: return DType::float64;
    case ScalarType::Half: return DType::float16;
    case ScalarType::BFloat16: return DType::bfloat16;
    default: STD_TORCH_CHECK(false, "x must be float64, float32, float16 or bfloat16"); return DType::float32;
  }
}

inline ScalarType state_type(DType dtype) {
  return dtype == DType::float64 ? ScalarType::Double : ScalarType::Float;
}

inline Problem make_problem(const Tensor& x, const Tensor& gates, const std::optional<Tensor>& source,
                            const std::string& direction, const std::string& normalize, const std::string& merge,
                            int64_t restart_every) {
  Problem p;
  p.dtype = dtype_of(x.scalar_type());
  p.normalize = static_cast<Normalize>(index_of(normalize, {"none", "abs", "unit", "sigmoid"}, "normalize"));
  p.merge = static_cast<Merge>(index_of(merge, {"none", "max", "mean", "sum"}, "merge"));
  const int which = index_of(
      direction, {"left_to_right", "right_to_left", "top_to_bottom", "bottom_to_top", "four_way"}, "direction");
  p.directions = which == kDirections ? kDirections : 1;
  p.first_direction = which == kDirections ? 0 : which;
  STD_TORCH_CHECK(x.dim() == 4 && gates.dim() == 6, "x must have 4 dimensions and gates 6");
  p.batch = x.size(0);
  p.channels = x.size(1);
  p.height = x.size(2);
  p.width = x.size(3);
  p.gate_groups = gates.size(3);
  p.source_groups = source ? source->size(2) : 0;
  p.restart_every = restart_every;
  STD_TORCH_CHECK(restart_every >= 0, "restart_every must be at least 1 line, or 0 for none");
  STD_TORCH_CHECK(gates.size(0) == p.batch && gates.size(1) == p.directions && gates.size(2) == 3 &&
                      p.channels % p.gate_groups == 0 && gates.size(4) == p.height && gates.size(5) == p.width,
                  "the shape of gates does not match x");
  STD_TORCH_CHECK(gates.scalar_type() == x.scalar_type(), "gates and x must have the same dtype");
  if (source) {
    STD_TORCH_CHECK(source->dim() == 5 && source->size(0) == p.batch && source->size(1) == p.directions &&
                        p.channels % p.source_groups == 0 && source->size(3) == p.height &&
                        source->size(4) == p.width && source->scalar_type() == x.scalar_type(),
                    "the shape or dtype of source does not match x");
  }
  return p;
}

// The kernels read contiguous arrays. A tensor that is already contiguous is not copied.
inline Tensor as_contiguous(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
}

inline std::optional<Tensor> as_contiguous(const std::optional<Tensor>& t) {
  return t ? std::optional<Tensor>(as_contiguous(*t)) : std::nullopt;
}

struct ForwardCall {
  Tensor x, gates;
  std::optional<Tensor> source;
  Tensor out, winner, checkpoints;
  ForwardArgs args;

  ForwardCall(const Tensor& x_, const Tensor& gates_, const std::optional<Tensor>& source_,
              const std::string& direction, const std::string& normalize, const std::string& merge, bool save_winner,
              bool save_checkpoints, int64_t restart_every)
      : x(as_contiguous(x_)), gates(as_contiguous(gates_)), source(as_contiguous(source_)) {
    static_cast<Problem&>(args) = make_problem(x, gates, source, direction, normalize, merge, restart_every);
    std::vector<int64_t> shape{args.batch, args.channels, args.height, args.width};
    save_winner = save_winner && args.merge == Merge::max;
    winner = torch::stable::new_empty(x, save_winner ? shape : std::vector<int64_t>{0}, ScalarType::Byte);
    checkpoints = torch::stable::new_empty(
        x,
        save_checkpoints ? std::vector<int64_t>{args.batch, args.channels, args.checkpoint_offset(args.directions)}
                         : std::vector<int64_t>{0},
        state_type(args.dtype));
    if (args.merge == Merge::none) shape.insert(shape.begin() + 1, args.directions);
    out = torch::stable::new_empty(x, shape);
    args.x = x.const_data_ptr();
    args.gates = gates.const_data_ptr();
    args.source = source ? source->const_data_ptr() : nullptr;
    args.out = out.mutable_data_ptr();
    args.winner = save_winner ? static_cast<uint8_t*>(winner.mutable_data_ptr()) : nullptr;
    args.checkpoints = save_checkpoints ? checkpoints.mutable_data_ptr() : nullptr;
  }
  bool empty() const { return x.numel() == 0; }
  std::tuple<Tensor, Tensor, Tensor> results() const { return {out, winner, checkpoints}; }
};

struct BackwardCall {
  Tensor grad, x, gates;
  std::optional<Tensor> source;
  Tensor winner, checkpoints;
  Tensor grad_x, grad_gates, grad_source;
  BackwardArgs args;

  BackwardCall(const Tensor& grad_, const Tensor& x_, const Tensor& gates_, const std::optional<Tensor>& source_,
               const Tensor& winner_, const Tensor& checkpoints_, const std::string& direction,
               const std::string& normalize, const std::string& merge, bool for_x, bool for_gates, bool for_source,
               int64_t restart_every)
      : grad(as_contiguous(grad_)),
        x(for_gates || for_source ? as_contiguous(x_) : x_),
        gates(as_contiguous(gates_)),
        source(as_contiguous(source_)),
        winner(as_contiguous(winner_)),
        checkpoints(as_contiguous(checkpoints_)) {
    static_cast<Problem&>(args) = make_problem(x, gates, source, direction, normalize, merge, restart_every);
    STD_TORCH_CHECK(source || !for_source, "the gradient of source was requested, but source is None");
    const int64_t saved = args.batch * args.channels * args.checkpoint_offset(args.directions);
    STD_TORCH_CHECK(!for_gates || checkpoints.numel() == saved,
                    "the gradient of gates needs the checkpoints of the forward pass");
    STD_TORCH_CHECK(args.merge != Merge::max || winner.numel() == x.numel(),
                    "the gradient of a maximum needs winner of the forward pass");
    args.grad_x = allocate(for_x, x, grad_x);
    args.grad_gates = allocate(for_gates, gates, grad_gates);
    args.grad_source = allocate(for_source, source ? *source : x, grad_source);
    args.grad = grad.const_data_ptr();
    args.x = x.const_data_ptr();
    args.gates = gates.const_data_ptr();
    args.source = source ? source->const_data_ptr() : nullptr;
    args.winner = static_cast<const uint8_t*>(winner.const_data_ptr());
    args.checkpoints = checkpoints.const_data_ptr();
  }
  bool empty() const { return x.numel() == 0 || !(args.grad_x || args.reads_x()); }
  std::tuple<Tensor, Tensor, Tensor> results() const { return {grad_x, grad_gates, grad_source}; }

 private:
  // Allocate the gradient of `input` and return its data pointer. If it is not wanted, leave the tensor empty and
  // return null.
  static void* allocate(bool wanted, const Tensor& input, Tensor& grad) {
    grad = wanted ? torch::stable::new_empty(input, input.sizes())
                  : torch::stable::new_empty(input, std::vector<int64_t>{0});
    return wanted ? grad.mutable_data_ptr() : nullptr;
  }
};

}  // namespace spn
