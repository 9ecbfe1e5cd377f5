// One line of the recurrence and of its adjoint: loops over positions that the compiler vectorises.
#pragma once

#include "../problem.h"
#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

constexpr int64_t kPadding = 16;  // values; keeps lines of a power of two apart in the cache

inline int64_t padded(int64_t positions) {
  return (positions + kPadding - 1) / kPadding * kPadding + kPadding;
}

// Lines of what a step sends back need a zero on both sides, so they lie further apart.
inline int64_t sent_stride(int64_t positions) {
  return padded(positions) + kPadding;
}

template <typename T>
struct TapLines {
  T *minus, *zero, *plus;

  SPN_HD auto at(int64_t j) const { return Taps<std::remove_const_t<T>>{minus[j], zero[j], plus[j]}; }
};

// What a step at line t reads. `previous` is h of line t - 1, null on the first line, where no tap exists; the values
// beside its ends are read but do not count.
template <typename T>
struct LineInputs {
  int64_t positions;
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

template <typename T>
SPN_HD Taps<T> taps_of(const T* line, int64_t j, bool has_minus, bool has_plus) {
  return {has_minus ? line[j - 1] : T(0), line[j], has_plus ? line[j + 1] : T(0)};
}

// Calls f(j, has_minus, has_plus) for every position. The long loop treats the two ends, where a tap is missing, like
// the rest, so that it runs over whole aligned vectors; then they are done over.
template <typename F>
SPN_HD void for_positions(int64_t positions, F f) {
#pragma GCC ivdep
  for (int64_t j = 0; j < positions; ++j) f(j, true, true);
  f(int64_t{0}, false, positions > 1);
  if (positions > 1) f(positions - 1, true, false);
}

template <typename T>
SPN_HD void prefetch_later_line(const LineInputs<T>& in) {
  for (int64_t j = in.ahead; j < in.ahead + in.positions; j += 64 / static_cast<int64_t>(sizeof(T))) {
    prefetch_far(in.gates.minus + j);
    prefetch_far(in.gates.zero + j);
    prefetch_far(in.gates.plus + j);
    prefetch_far(in.x + j);
  }
}

template <Normalize kMode, bool kSource, typename T>
void forward_line(const LineInputs<T>& in, T* __restrict h) {
  const T* __restrict x = in.x;
  const T* __restrict lambda = in.lambda;
  const T* __restrict previous = in.previous;
  if (!previous) {
    for (int64_t j = 0; j < in.positions; ++j) h[j] = kSource ? lambda[j] * x[j] : x[j];
    return;
  }
  const TapLines<const T> gates = in.gates;
  if (in.ahead) prefetch_later_line(in);
  for_positions(in.positions, [=](int64_t j, bool has_minus, bool has_plus) __attribute__((always_inline)) {
    const Taps<T> p = normalize<kMode>(gates.at(j), has_minus, has_plus);
    h[j] = step<kSource>(x[j], kSource ? lambda[j] : T(0), p, taps_of(previous, j, has_minus, has_plus));
  });
}

// adjoint   a(t, j) = dh(t, j) + sum_k p_k(t+1, j-k) a(t+1, j-k)
// `grad` is dh of this line, `carry` the sum: what line t + 1 sent back on entry, what this line sends to t - 1 on
// exit. `sent` holds three lines of p_k a, sent_stride apart, each with a zero before and after it. Without kGates only
// whether `previous` is null counts, and without kLambda too x is not read.
template <Normalize kMode, bool kSource, bool kGates, bool kLambda, typename T>
void backward_line(const LineInputs<T>& in, const T* __restrict grad, T* __restrict carry, T* __restrict sent,
                   const LineGradients<T>& out) {
  const int64_t positions = in.positions;
  const T* __restrict x = in.x;
  const T* __restrict lambda = in.lambda;
  const T* __restrict previous = in.previous;
  T* __restrict grad_x = out.x;
  T* __restrict grad_lambda = out.lambda;
  T* __restrict grad_minus = out.gates.minus;
  T* __restrict grad_zero = out.gates.zero;
  T* __restrict grad_plus = out.gates.plus;
  if (!previous) {
#pragma GCC ivdep
    for (int64_t j = 0; j < positions; ++j) {
      const T a = grad[j] + carry[j];
      grad_x[j] = kSource ? lambda[j] * a : a;
      if (kLambda) grad_lambda[j] = x[j] * a;
      if (kGates) grad_minus[j] = grad_zero[j] = grad_plus[j] = T(0);
    }
    return;
  }
  const TapLines<const T> gates = in.gates;
  T* __restrict sent_minus = sent;
  T* __restrict sent_zero = sent + sent_stride(positions);
  T* __restrict sent_plus = sent + 2 * sent_stride(positions);
  for_positions(positions, [=](int64_t j, bool has_minus, bool has_plus) __attribute__((always_inline)) {
    const T a = grad[j] + carry[j];
    const Taps<T> g = gates.at(j);
    const Taps<T> p = normalize<kMode>(g, has_minus, has_plus);
    grad_x[j] = input_adjoint<kSource>(a, kSource ? lambda[j] : T(0), p);
    if (kLambda) grad_lambda[j] = x[j] * a;
    if (kGates) {
      const Taps<T> h = taps_of(previous, j, has_minus, has_plus);
      const Taps<T> dp = gate_adjoint<kSource>(a, x[j], h, has_minus, has_plus);
      const Taps<T> dg = normalize_adjoint<kMode>(g, p, dp, has_minus, has_plus);
      grad_minus[j] = dg.minus;
      grad_zero[j] = dg.zero;
      grad_plus[j] = dg.plus;
    }
    sent_minus[j] = p.minus * a;
    sent_zero[j] = p.zero * a;
    sent_plus[j] = p.plus * a;
  });
  // Position j of line t - 1 is tap k of position j - k.
#pragma GCC ivdep
  for (int64_t j = 0; j < positions; ++j) carry[j] = sent_minus[j + 1] + sent_zero[j] + sent_plus[j - 1];
}

template <typename T>
struct LineKernels {
  void (*forward)(const LineInputs<T>&, T*);
  void (*backward)(const LineInputs<T>&, const T*, T*, T*, const LineGradients<T>&);
};

// What a backward kernel computes beside the gradient of x. With that of gates it computes all, so that the compiler
// cannot round it in another way; the lines are in the cache.
enum class Beside : int { nothing, lambda, all };

template <Normalize kMode, bool kSource, typename T>
LineKernels<T> line_kernels_for(Beside beside) {
  constexpr auto forward = forward_line<kMode, kSource, T>;
  switch (beside) {
    case Beside::all: return {forward, backward_line<kMode, kSource, true, kSource, T>};
    case Beside::lambda: return {forward, backward_line<kMode, kSource, false, kSource, T>};
    default: return {forward, backward_line<kMode, kSource, false, false, T>};
  }
}

template <bool kSource, typename T>
LineKernels<T> line_kernels_for(Normalize mode, Beside beside) {
  switch (mode) {
    case Normalize::none: return line_kernels_for<Normalize::none, kSource, T>(beside);
    case Normalize::abs: return line_kernels_for<Normalize::abs, kSource, T>(beside);
    case Normalize::unit: return line_kernels_for<Normalize::unit, kSource, T>(beside);
    default: return line_kernels_for<Normalize::sigmoid, kSource, T>(beside);
  }
}

template <typename T>
LineKernels<T> line_kernels(Normalize mode, bool source, Beside beside) {
  return source ? line_kernels_for<true, T>(mode, beside) : line_kernels_for<false, T>(mode, beside);
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
