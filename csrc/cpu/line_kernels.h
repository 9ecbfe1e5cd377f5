// One line of the recurrence and of its adjoint, as loops that the compiler vectorises.
//
// kApart is the distance between neighbouring positions of a line, in values. It is 1 for a line of one plane and
// kLanes for a line of kLanes interleaved planes (interleave.h), whose vectors hold one position of every plane.
#pragma once

#include "../problem.h"
#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Goes before a loop whose iterations are independent, so that the compiler vectorises it without a run-time check.
#ifdef __clang__
#define SPN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define SPN_INDEPENDENT _Pragma("GCC ivdep")
#endif

constexpr int64_t kPadding = 16;  // values; keeps lines whose length is a power of two from colliding in the cache

inline int64_t padded(int64_t values) {
  return (values + kPadding - 1) / kPadding * kPadding + kPadding;
}

// Distance between the lines `sent` of backward_line. They need zeros on both sides, so they lie further apart.
inline int64_t sent_stride(int64_t values) {
  return padded(values) + kPadding;
}

template <typename T>
struct TapLines {
  T *minus, *zero, *plus;

  SPN_HD auto at(int64_t j) const { return Taps<std::remove_const_t<T>>{minus[j], zero[j], plus[j]}; }
};

// The inputs of a step at line t. `previous` is h of line t - 1, or null if line t has no taps (the first line and
// restarts). The values next to both ends of `previous` are read, but do not affect the result.
template <typename T>
struct LineInputs {
  int64_t values;  // positions times kApart
  TapLines<const T> gates;
  const T* x;
  const T* lambda;  // null in SPN form
  const T* previous;
  int64_t ahead;  // distance in values to the gates and x of a later line, which are prefetched; 0: no prefetch
};

// The outputs of the adjoint of a line.
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

// Call f(i, has_minus, has_plus) for every value of a line. With kApart = 1, the main loop first computes all values as
// if both neighbours existed, so that it runs over whole aligned vectors. Then before_ends() is called, and the first
// and the last value are computed again, without the missing neighbour.
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
// `grad` is dh of this line. On entry, `carry` is the sum over k that line t + 1 contributes; on exit, it is the sum
// that this line contributes to line t - 1. `sent` is scratch for three lines of p_k a, sent_stride apart, each with
// zeros before and after. Without kGates, `previous` is only compared with null; without kGates and kLambda, x is not
// read. With kAdds, the gradient of the gates is added to the existing values.
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

// Compute the weights p of a line of gates that several channels share. A tap that does not exist has weight zero.
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

// Convert dL/dp of a line of shared gates to dL/dg, in place.
template <Normalize kMode, typename T>
void normalize_adjoint_line(TapLines<const T> gates, TapLines<const T> weights, int64_t positions,
                            TapLines<T> gradient) {
  // for_values does not work here: it computes the ends twice, and the second time would read its own output.
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
  void (*add)(const LineInputs<T>&, const T*, T*, T*, const LineGradients<T>&);  // backward with kAdds, or null
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

// The gradients that a backward kernel computes besides the gradient of x. If the gradient of the gates is requested,
// one kernel computes all gradients: separate kernels for each combination could be compiled with different rounding.
// The extra cost is small, because the lines are in the cache.
enum class Beside : int { nothing, lambda, all };

template <Normalize kMode, bool kSource, int kApart, typename T>
LineKernels<T> line_kernels_for(Beside beside) {
  constexpr auto forward = forward_line<kMode, kSource, kApart, T>;
  switch (beside) {
    case Beside::all: {
      constexpr auto backward = backward_line<kMode, kSource, true, kSource, false, kApart, T>;
      // Only weights that are already normalised are shared by several planes.
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
