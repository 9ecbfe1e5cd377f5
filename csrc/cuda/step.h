// The step of csrc/recurrence.h for options that are known at run time only: one branch that a whole launch takes alike
// costs less than four times as many kernels.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "../problem.h"
#include "simt.h"

namespace spn {
namespace cuda {

template <typename S>
using StateOf = std::conditional_t<std::is_same_v<S, double>, double, float>;

template <typename T>
SPN_DEVICE Taps<T> normalize_by(Normalize mode, Taps<T> g, bool has_minus, bool has_plus) {
  switch (mode) {
    case Normalize::none: return normalize<Normalize::none>(g, has_minus, has_plus);
    case Normalize::abs: return normalize<Normalize::abs>(g, has_minus, has_plus);
    case Normalize::unit: return normalize<Normalize::unit>(g, has_minus, has_plus);
    default: return normalize<Normalize::sigmoid>(g, has_minus, has_plus);
  }
}

template <typename T>
SPN_DEVICE Taps<T> normalize_adjoint_by(Normalize mode, Taps<T> g, Taps<T> p, Taps<T> dp, bool has_minus,
                                        bool has_plus) {
  switch (mode) {
    case Normalize::none: return normalize_adjoint<Normalize::none>(g, p, dp, has_minus, has_plus);
    case Normalize::abs: return normalize_adjoint<Normalize::abs>(g, p, dp, has_minus, has_plus);
    case Normalize::unit: return normalize_adjoint<Normalize::unit>(g, p, dp, has_minus, has_plus);
    default: return normalize_adjoint<Normalize::sigmoid>(g, p, dp, has_minus, has_plus);
  }
}

template <typename T>
SPN_DEVICE T step_by(bool source, T x, T lambda, Taps<T> p, Taps<T> previous) {
  return source ? step<true>(x, lambda, p, previous) : step<false>(x, lambda, p, previous);
}

// What line t reads of line t - 1 at position j.
template <typename T>
SPN_DEVICE Taps<T> taps_at(const T* line, int64_t j, bool has_minus, bool has_plus) {
  return {has_minus ? load(line + j - 1) : T(0), load(line + j), has_plus ? load(line + j + 1) : T(0)};
}

}  // namespace cuda
}  // namespace spn
