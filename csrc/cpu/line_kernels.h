// One line of the recurrence and of its adjoint: loops that the compiler vectorises.
//
// kApart is the distance between neighbouring positions of a line, in values: 1 for a line of one plane, kLanes for a
// line of kLanes planes side by side (interleave.h), whose vectors hold one position of every plane.
#pragma once

#include "../problem.h"
#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Before a loop: its iterations do not depend on one another, so that it may be vectorised without a check.
#ifdef __clang__
#define SPN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SPN_INDEPENDENT _Pragma("GCC ivdep")
#endif

constexpr int64_t kPadding = 16;  // values; keeps lines of a power of two apart in the cache

inline int64_t padded(int64_t values) {
  return (values + kPadding - 1) / kPadding * kPadding + kPadding;
}

// Lines of what a step sends back need zeros on both sides, so they lie further apart.
inline int64_t sent_stride(int64_t values) {
  return padded(values) + kPadding;
}

template <typename T>
struct TapLines {
  T *minus, *zero, *plus;

  SPN_HD auto at(int64_t j) const { return Taps<std::remove_const_t<T>>{minus[j], zero[j], plus[j]}; }
};

// What a step at line t reads. `previous` is h of line t - 1, null where the sweep starts and no tap exists; the values
// beside its ends are read but do not count.
template <typename T>
struct LineInputs {
  int64_t values;  // positions times kApart
  TapLines<const T> gates;
  const T* x;
  const T* lambda;  // null in SPN form
  const T* previous;
  int64_t ahead;  // gates and x of a line still to come lie so many values further: asked for early, unless 0
};

// Where the adjoint of a line goes.
template <typename T>
struct LineGradients {
  T* x;
  TapLines<T> gates;
  T* lambda;
};

template <int kApart, typename T>
SPN_HD Taps<T> taps_of(const T* line, int64_t i, bool has_minus, bool has_plus) {
  return {has_minus ? line[i - kApart] : T(0), line[i], has_plus ? line[i + kApart] : T(0)};
}

// Calls f(i, has_minus, has_plus) for every value of a line. Where an end is one value, the long loop treats it like
// the rest, so that it runs over whole aligned vectors; then, after `before_ends`, the ends are done over.
template <int kApart, typename F, typename G>
SPN_HD void for_values(int64_t values, F f, G before_ends) {
  if constexpr (kApart == 1) {
    SPN_INDEPENDENT
    for (int64_t i = 0; i < values; ++i) f(i, true, true);
    before_ends();
    f(int64_t{0}, false, values > 1);
    if (values > 1) f(values - 1, true, false);
  } else {
    const int64_t last = values - kApart;
    if (last == 0) {
      SPN_INDEPENDENT
      for (int64_t i = 0; i < kApart; ++i) f(i, false, false);
      return;
    }
    SPN_INDEPENDENT
    for (int64_t i = 0; i < kApart; ++i) f(i, false, true);
    SPN_INDEPENDENT
    for (int64_t i = kApart; i < last; ++i) f(i, true, true);
    SPN_INDEPENDENT
    for (int64_t i = last; i < last + kApart; ++i) f(i, true, false);
  }
}

template <int kApart, typename F>
SPN_HD void for_values(int64_t values, F f) {
  for_values<kApart>(values, f, [] {});
}

template <typename T>
SPN_HD void prefetch_later_line(const LineInputs<T>& in) {
  for (int64_t j = in.ahead; j < in.ahead + in.values; j += 64 / static_cast<int64_t>(sizeof(T))) {
    prefetch_far(in.gates.minus + j);
    prefetch_far(in.gates.zero + j);
    prefetch_far(in.gates.plus + j);
    prefetch_far(in.x + j);
  }
}

template <Normalize kMode, bool kSource, int kApart, typename T>
void forward_line(const LineInputs<T>& in, T* __restrict h) {
  const T* __restrict x = in.x;
  const T* __restrict lambda = in.lambda;
  const T* __restrict previous = in.previous;
  if (!previous) {
    for (int64_t i = 0; i < in.values; ++i) h[i] = start<kSource>(x[i], kSource ? lambda[i] : T(0));
    return;
  }
  const TapLines<const T> gates = in.gates;
  if (in.ahead) prefetch_later_line(in);
  for_values<kApart>(in.values, [=](int64_t i, bool has_minus, bool has_plus) __attribute__((always_inline)) {
    const Taps<T> p = normalize<kMode>(gates.at(i), has_minus, has_plus);
    h[i] = step<kSource>(x[i], kSource ? lambda[i] : T(0), p, taps_of<kApart>(previous, i, has_minus, has_plus));
  });
}

// adjoint   a(t, j) = dh(t, j) + sum_k p_k(t+1, j-k) a(t+1, j-k)
// `grad` is dh of this line, `carry` the sum: what line t + 1 sent back on entry, what this line sends to t - 1 on
// exit. `sent` holds three lines of p_k a, sent_stride apart, each with zeros before and after it. Without kGates only
// whether `previous` is null counts, and without kLambda too x is not read. With kAdds the gates' gradient is added to
// what is there.
template <Normalize kMode, bool kSource, bool kGates, bool kLambda, bool kAdds, int kApart, typename T>
void backward_line(const LineInputs<T>& in, const T* __restrict grad, T* __restrict carry, T* __restrict sent,
                   const LineGradients<T>& out) {
  const int64_t values = in.values;
  const T* __restrict x = in.x;
  const T* __restrict lambda = in.lambda;
  const T* __restrict previous = in.previous;
  T* __restrict grad_x = out.x;
  T* __restrict grad_lambda = out.lambda;
  T* __restrict grad_minus = out.gates.minus;
  T* __restrict grad_zero = out.gates.zero;
  T* __restrict grad_plus = out.gates.plus;
  if (!previous) {
    SPN_INDEPENDENT
    for (int64_t i = 0; i < values; ++i) {
      const T a = grad[i] + carry[i];
      grad_x[i] = kSource ? lambda[i] * a : a;
      if (kLambda) grad_lambda[i] = x[i] * a;
      if (kGates && !kAdds) grad_minus[i] = grad_zero[i] = grad_plus[i] = T(0);
      carry[i] = T(0);
    }
    return;
  }
  const TapLines<const T> gates = in.gates;
  T* __restrict sent_minus = sent;
  T* __restrict sent_zero = sent + sent_stride(values);
  T* __restrict sent_plus = sent + 2 * sent_stride(values);
  const int64_t last = values - 1;
  Taps<T> first_sum, last_sum;
  if (kAdds) {
    first_sum = {grad_minus[0], grad_zero[0], grad_plus[0]};
    last_sum = {grad_minus[last], grad_zero[last], grad_plus[last]};
  }
  const auto value = [=](int64_t i, bool has_minus, bool has_plus) __attribute__((always_inline)) {
    const T a = grad[i] + carry[i];
    const Taps<T> g = gates.at(i);
    const Taps<T> p = normalize<kMode>(g, has_minus, has_plus);
    grad_x[i] = input_adjoint<kSource>(a, kSource ? lambda[i] : T(0), p);
    if (kLambda) grad_lambda[i] = x[i] * a;
    if (kGates) {
      const Taps<T> h = taps_of<kApart>(previous, i, has_minus, has_plus);
      const Taps<T> dp = gate_adjoint<kSource>(a, x[i], h, has_minus, has_plus);
      const Taps<T> dg = normalize_adjoint<kMode>(g, p, dp, has_minus, has_plus);
      grad_minus[i] = kAdds ? grad_minus[i] + dg.minus : dg.minus;
      grad_zero[i] = kAdds ? grad_zero[i] + dg.zero : dg.zero;
      grad_plus[i] = kAdds ? grad_plus[i] + dg.plus : dg.plus;
    }
    sent_minus[i] = p.minus * a;
    sent_zero[i] = p.zero * a;
    sent_plus[i] = p.plus * a;
  };
  for_values<kApart>(values, value, [&] {
    if (!kAdds) return;
    grad_minus[0] = first_sum.minus, grad_zero[0] = first_sum.zero, grad_plus[0] = first_sum.plus;
    grad_minus[last] = last_sum.minus, grad_zero[last] = last_sum.zero, grad_plus[last] = last_sum.plus;
  });
  // Position j of line t - 1 is tap k of position j - k.
  SPN_INDEPENDENT
  for (int64_t i = 0; i < values; ++i) carry[i] = sent_minus[i + kApart] + sent_zero[i] + sent_plus[i - kApart];
}

// p of a line that several channels share: zero where a tap does not exist.
template <Normalize kMode, typename T>
void normalize_line(TapLines<const T> gates, int64_t positions, TapLines<T> weights) {
  T* __restrict minus = weights.minus;
  T* __restrict zero = weights.zero;
  T* __restrict plus = weights.plus;
  for_values<1>(positions, [=](int64_t j, bool has_minus, bool has_plus) __attribute__((always_inline)) {
    const Taps<T> p = normalize<kMode>(gates.at(j), has_minus, has_plus);
    minus[j] = p.minus;
    zero[j] = p.zero;
    plus[j] = p.plus;
  });
}

// dL/dg of such a line from dL/dp, in its place.
template <Normalize kMode, typename T>
void normalize_adjoint_line(TapLines<const T> gates, TapLines<const T> weights, int64_t positions,
                            TapLines<T> gradient) {
  // Not for_values: done over, the ends would read what they have written.
  SPN_INDEPENDENT
  for (int64_t j = 0; j < positions; ++j) {
    const Taps<T> dg =
        normalize_adjoint<kMode>(gates.at(j), weights.at(j), Taps<T>(gradient.at(j)), j > 0, j + 1 < positions);
    gradient.minus[j] = dg.minus;
    gradient.zero[j] = dg.zero;
    gradient.plus[j] = dg.plus;
  }
}

template <typename T>
struct LineKernels {
  void (*forward)(const LineInputs<T>&, T*);
  void (*backward)(const LineInputs<T>&, const T*, T*, T*, const LineGradients<T>&);
  void (*add)(const LineInputs<T>&, const T*, T*, T*, const LineGradients<T>&);  // backward, with kAdds; or null
};

template <typename T>
struct GateKernels {
  void (*normalize)(TapLines<const T>, int64_t, TapLines<T>);
  void (*adjoint)(TapLines<const T>, TapLines<const T>, int64_t, TapLines<T>);
};

template <typename T>
GateKernels<T> gate_kernels(Normalize mode) {
  switch (mode) {
    case Normalize::abs: return {normalize_line<Normalize::abs, T>, normalize_adjoint_line<Normalize::abs, T>};
    case Normalize::unit: return {normalize_line<Normalize::unit, T>, normalize_adjoint_line<Normalize::unit, T>};
    case Normalize::sigmoid:
      return {normalize_line<Normalize::sigmoid, T>, normalize_adjoint_line<Normalize::sigmoid, T>};
    default: return {normalize_line<Normalize::none, T>, normalize_adjoint_line<Normalize::none, T>};
  }
}

// What a backward kernel computes beside the gradient of x. With that of gates it computes all, so that the compiler
// cannot round it in another way; the lines are in the cache.
enum class Beside : int { nothing, lambda, all };

template <Normalize kMode, bool kSource, int kApart, typename T>
LineKernels<T> line_kernels_for(Beside beside) {
  constexpr auto forward = forward_line<kMode, kSource, kApart, T>;
  switch (beside) {
    case Beside::all: {
      constexpr auto backward = backward_line<kMode, kSource, true, kSource, false, kApart, T>;
      // Only weights that were normalised before are shared by several planes.
      if constexpr (kMode == Normalize::none) {
        return {forward, backward, backward_line<kMode, kSource, true, kSource, true, kApart, T>};
      }
      return {forward, backward, nullptr};
    }
    case Beside::lambda: return {forward, backward_line<kMode, kSource, false, kSource, false, kApart, T>, nullptr};
    default: return {forward, backward_line<kMode, kSource, false, false, false, kApart, T>, nullptr};
  }
}

template <bool kSource, int kApart, typename T>
LineKernels<T> line_kernels_for(Normalize mode, Beside beside) {
  switch (mode) {
    case Normalize::none: return line_kernels_for<Normalize::none, kSource, kApart, T>(beside);
    case Normalize::abs: return line_kernels_for<Normalize::abs, kSource, kApart, T>(beside);
    case Normalize::unit: return line_kernels_for<Normalize::unit, kSource, kApart, T>(beside);
    default: return line_kernels_for<Normalize::sigmoid, kSource, kApart, T>(beside);
  }
}

template <int kApart, typename T>
LineKernels<T> line_kernels(Normalize mode, bool source, Beside beside) {
  return source ? line_kernels_for<true, kApart, T>(mode, beside) : line_kernels_for<false, kApart, T>(mode, beside);
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
