// One step of the recurrence and its adjoint, each under its equation. The CPU and CUDA kernels share this file.
// docs/theory.md derives the equations: x is the input, g the raw gates, p their weights and h the hidden state.
//
// Tap k = -1, 0, +1 of position j on line t reads position j + k of line t - 1. A tap that points outside the map does
// not exist: its weight p is zero here, and the caller passes zero for the value that it would have read.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "sweep.h"

namespace spn {

enum class Normalize : int { none, abs, unit, sigmoid };

// One value per tap k = -1, 0, +1.
template <typename T>
struct Taps {
  T minus, zero, plus;
};

template <typename T>
SPN_HD T dot(Taps<T> a, Taps<T> b) {
  return a.minus * b.minus + a.zero * b.zero + a.plus * b.plus;
}

template <typename T>
SPN_HD T magnitude(T value) {
  return std::fabs(value);
}

// Return value - sign(g) * shared without a multiplication: the sign bit of g flips the sign of `shared`.
template <typename T>
SPN_HD T minus_signed(T value, T g, T shared) {
  using Bits = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  constexpr Bits kSign = Bits(1) << (8 * sizeof(T) - 1);
  Bits bits, sign;
  __builtin_memcpy(&bits, &shared, sizeof(bits));
  __builtin_memcpy(&sign, &g, sizeof(sign));
  bits ^= sign & kSign;
  T signed_shared;
  __builtin_memcpy(&signed_shared, &bits, sizeof(bits));
  return g == T(0) ? value : value - signed_shared;
}

// Return 1 / value for value >= 1e-30 or NaN, and 0 for infinity. On a GPU, the result for float is accurate to one or
// two ulp: an exact division contains branches, which would keep the compiler from interleaving several lines. The
// instruction flushes subnormal results to zero. The code therefore computes 4 / value, which is never subnormal for a
// float, and multiplies it by 1/4.
template <typename T>
SPN_HD T reciprocal(T value) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == sizeof(float)) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(0.25f * value));
    return 0.25f * result;
  }
#endif
  return T(1) / value;
}

// exp(value) for value <= 0. The host version has no branch and no call, so that loops over it vectorise. Let n be the
// integer nearest to value / ln 2. Then exp(value) = 2^n exp(r) with |r| <= ln 2 / 2, and a Taylor polynomial gives
// exp(r). Adding and subtracting 1.5 * 2^mantissa rounds to n. The sum also holds n in its low bits; shifting them into
// the exponent gives 2^n. Smaller values than `lowest` are raised to it, so that 2^n does not become subnormal.
template <int kDegree>
constexpr double reciprocal_factorial() {
  double factorial = 1;
  for (int k = 2; k <= kDegree; ++k) factorial *= k;
  return 1 / factorial;
}

template <int kDegree, typename T>
SPN_HD T taylor_of_exponential(T r, T sum) {
  if constexpr (kDegree < 0) {
    return sum;
  } else {
    return taylor_of_exponential<kDegree - 1>(r, sum * r + T(reciprocal_factorial<kDegree>()));
  }
}

template <typename T, typename Bits, int kMantissa, int kBias, int kDegree>
SPN_HD T exponential_by_series(T value) {
  constexpr T rounder = T(3) * T(Bits(1) << (kMantissa - 1));
  const T lowest = T(-0.68) * kBias;
  value = value < lowest ? lowest : value;
  const T shifted = value * T(1.4426950408889634) + rounder;
  const T n = shifted - rounder;
  const T r = (value - n * T(0.693145751953125)) - n * T(1.4286068203094172e-06);  // ln 2, split into two parts
  const T sum = taylor_of_exponential<kDegree>(r, T(0));
  Bits bits;
  __builtin_memcpy(&bits, &shifted, sizeof(bits));
  bits = (bits + kBias) << kMantissa;
  T power;
  __builtin_memcpy(&power, &bits, sizeof(power));
  return sum * power;
}

SPN_HD float exponential(float value) {
#ifdef __CUDA_ARCH__
  return expf(value);
#else
  return exponential_by_series<float, uint32_t, 23, 127, 7>(value);
#endif
}

SPN_HD double exponential(double value) {
#ifdef __CUDA_ARCH__
  return exp(value);
#else
  return exponential_by_series<double, uint64_t, 52, 1023, 13>(value);
#endif
}

// SPN form     h = (1 - sum_k p_k) x + sum_k p_k h_k = x + sum_k p_k (h_k - x)      (Liu et al. 2017, eq. 2)
// source form  h = lambda x + sum_k p_k h_k
// The code uses the second expression of the SPN form: it keeps a constant map constant to the last bit.
template <bool kSource, typename T>
SPN_HD T step(T x, T lambda, Taps<T> p, Taps<T> previous) {
  if (kSource) return lambda * x + dot(p, previous);
  return x + p.minus * (previous.minus - x) + p.zero * (previous.zero - x) + p.plus * (previous.plus - x);
}

// The step on a line where no tap exists.
template <bool kSource, typename T>
SPN_HD T start(T x, T lambda) {
  return kSource ? lambda * x : x;
}

// The gradient of x, where a = dL/dh(t, j) already includes the contributions from line t + 1:
// SPN form     dx = (1 - sum_k p_k) a = a - sum_k p_k a
// source form  dx = lambda a,   dlambda = x a
template <bool kSource, typename T>
SPN_HD T input_adjoint(T a, T lambda, Taps<T> p) {
  return kSource ? lambda * a : a - p.minus * a - p.zero * a - p.plus * a;
}

// The gradient of the weights:
// SPN form     dp_k = a (h_k - x)
// source form  dp_k = a h_k
// Eq. (4) of the paper swaps the indices of h and the gate. gradcheck confirms the indices used here.
template <bool kSource, typename T>
SPN_HD Taps<T> gate_adjoint(T a, T x, Taps<T> previous, bool has_minus, bool has_plus) {
  const T base = kSource ? T(0) : x;
  return {has_minus ? a * (previous.minus - base) : T(0), a * (previous.zero - base),
          has_plus ? a * (previous.plus - base) : T(0)};
}

// abs   p_k = g_k / max(1, sum |g|)       over all three taps; |p| sums to at most 1 (Gershgorin: the sweep is stable)
// unit  p_k = g_k / max(sum |g|, 1e-4)    over all three taps
// Finite gates whose sum overflows the dtype of the hidden state have p = 0. An infinite gate has p = NaN, and the
// finite gates of the same pixel have p = 0.
template <Normalize kMode, typename T>
SPN_HD T absolute_floor() {
  return kMode == Normalize::abs ? T(1) : T(1e-4);
}

template <typename T>
SPN_HD T absolute_sum(Taps<T> g) {
  return magnitude(g.minus) + magnitude(g.zero) + magnitude(g.plus);
}

// sigmoid  p_k = s_k / sum_{V} s,   s_k = sigmoid(g_k),   V: the taps that exist
// Scaling every s by the same factor does not change the quotient. If all gates are so negative that sigmoid(g) ~
// exp(g) approaches underflow, the code factors out the largest and uses s_k = exp(g_k - max g). Each s_k is a fraction
// n_k / d_k with d_k from 1 to 2, so that all taps together need only one division: p_minus is n_minus d_zero d_plus
// divided by the sum of the three such products.
template <typename T>
struct Sigmoids {
  Taps<T> n;           // zero for taps that do not exist
  Taps<T> complement;  // 1 - sigmoid(g_k) = complement_k / d_k
  Taps<T> d;
};

template <typename T>
SPN_HD void scaled_sigmoid(T g, T shift, T& n, T& complement, T& d) {
  const T u = g - shift;
  const T e = exponential(-magnitude(u));
  // Without a shift, n / d = sigmoid(g). With a shift, u <= 0, so that n = e = exp(u) and d = 1.
  n = u < T(0) ? e : T(1);
  complement = u < T(0) ? T(1) : e;
  d = shift != T(0) ? T(1) : T(1) + e;
}

template <typename T>
SPN_HD Sigmoids<T> sigmoids(Taps<T> g, bool has_minus, bool has_plus) {
  T largest = g.zero;
  if (has_minus && g.minus > largest) largest = g.minus;
  if (has_plus && g.plus > largest) largest = g.plus;
  const T shift = largest < T(-60) ? largest : T(0);
  Sigmoids<T> s;
  scaled_sigmoid(has_minus ? g.minus : shift, shift, s.n.minus, s.complement.minus, s.d.minus);
  scaled_sigmoid(g.zero, shift, s.n.zero, s.complement.zero, s.d.zero);
  scaled_sigmoid(has_plus ? g.plus : shift, shift, s.n.plus, s.complement.plus, s.d.plus);
  if (!has_minus) s.n.minus = T(0);
  if (!has_plus) s.n.plus = T(0);
  return s;
}

// Multiply the factor of each tap by the d of the other two taps.
template <typename T>
SPN_HD Taps<T> times_others(Taps<T> factor, Taps<T> d) {
  return {factor.minus * (d.zero * d.plus), factor.zero * (d.minus * d.plus), factor.plus * (d.minus * d.zero)};
}

// Convert raw gates g to weights p. The weight of a tap that does not exist is zero.
template <Normalize kMode, typename T>
SPN_HD Taps<T> normalize(Taps<T> g, bool has_minus, bool has_plus) {
  Taps<T> p = g;
  if (kMode == Normalize::sigmoid) {
    const Sigmoids<T> s = sigmoids(g, has_minus, has_plus);
    p = times_others(s.n, s.d);
    const T scale = reciprocal(p.minus + p.zero + p.plus);
    return {p.minus * scale, p.zero * scale, p.plus * scale};
  }
  if (kMode != Normalize::none) {
    const T floor = absolute_floor<kMode, T>();
    const T total = absolute_sum(g);
    const T scale = reciprocal(total > floor ? total : floor);
    p = {g.minus * scale, g.zero * scale, g.plus * scale};
  }
  return {has_minus ? p.minus : T(0), p.zero, has_plus ? p.plus : T(0)};
}

// Convert dL/dp to dL/dg. The caller passes dp = 0 for a tap that does not exist.
// abs, unit  dg_k = (dp_k - sign(g_k) sum_j p_j dp_j) / sum |g|   if sum |g| is above the floor, else dp_k / floor
// sigmoid    dg_k = p_k (1 - sigmoid(g_k)) (dp_k - sum_j p_j dp_j)
template <Normalize kMode, typename T>
SPN_HD Taps<T> normalize_adjoint(Taps<T> g, Taps<T> p, Taps<T> dp, bool has_minus, bool has_plus) {
  if (kMode == Normalize::none) return dp;
  const T along = dot(p, dp);
  if (kMode == Normalize::sigmoid) {
    const Sigmoids<T> s = sigmoids(g, has_minus, has_plus);
    const Taps<T> complement = times_others(s.complement, s.d);
    const T scale = reciprocal(s.d.minus * s.d.zero * s.d.plus);
    return {p.minus * complement.minus * scale * (dp.minus - along),
            p.zero * complement.zero * scale * (dp.zero - along), p.plus * complement.plus * scale * (dp.plus - along)};
  }
  const T floor = absolute_floor<kMode, T>();
  const T total = absolute_sum(g);
  const bool above = total > floor;
  const T scale = reciprocal(above ? total : floor);
  const T shared = above ? along : T(0);
  return {minus_signed(dp.minus, g.minus, shared) * scale, minus_signed(dp.zero, g.zero, shared) * scale,
          minus_signed(dp.plus, g.plus, shared) * scale};
}

}  // namespace spn
