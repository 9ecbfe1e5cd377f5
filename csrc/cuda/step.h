// The step of csrc/recurrence.h for options that are only known at run time. One branch that all threads of a launch
// take alike costs less than four times as many kernels. Several lines are processed at once, so that they share the
// branch.
#pragma once

#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <type_traits>

#include "../problem.h"
#include "simt.h"

namespace spn {
namespace cuda {

// Call f(std::integral_constant<Normalize, mode>).
template <typename F>
SPN_DEVICE void with_normalize(Normalize mode, F f) {
  switch (mode) {
    case Normalize::none: return f(std::integral_constant<Normalize, Normalize::none>{});
    case Normalize::abs: return f(std::integral_constant<Normalize, Normalize::abs>{});
    case Normalize::unit: return f(std::integral_constant<Normalize, Normalize::unit>{});
    default: return f(std::integral_constant<Normalize, Normalize::sigmoid>{});
  }
}

// Convert raw gates of several lines to weights.
template <int kCount, typename T>
SPN_DEVICE void normalize_lines(Normalize mode, Taps<T> (&gates)[kCount], bool has_minus, bool has_plus) {
  with_normalize(mode, [&](auto chosen) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) gates[i] = normalize<decltype(chosen)::value>(gates[i], has_minus, has_plus);
  });
}

}  // namespace cuda
}  // namespace spn
