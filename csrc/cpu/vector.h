// SIMD vectors, and their loads and stores in every dtype.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../sweep.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

template <typename T>
using Vector __attribute__((vector_size(SPN_VECTOR_BYTES))) = T;

template <typename T>
constexpr int kLanes = SPN_VECTOR_BYTES / sizeof(T);

// A vector with as many lanes as Vector<T>, but of a narrower type.
template <typename Narrow, typename T>
using Lanes __attribute__((vector_size(kLanes<T> * sizeof(Narrow)))) = Narrow;

template <typename T>
using MaskOf = decltype(Vector<T>{} < Vector<T>{});

template <typename V>
SPN_HD V load_bits(const void* from) {
  V v;
  __builtin_memcpy(&v, from, sizeof(V));
  return v;
}

template <typename V>
SPN_HD void store_bits(void* to, V v) {
  __builtin_memcpy(to, &v, sizeof(V));
}

// Prefetch into the second-level cache. Many cache lines are in flight at once, and columns that lie a power of two
// apart would evict each other from the few sets of the first-level cache.
SPN_HD void prefetch_far(const void* address) {
  __builtin_prefetch(address, 0, 2);
}

template <typename To, typename From>
SPN_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  return load_bits<To>(&from);
}

template <typename T>
SPN_HD Vector<T> load_as(const T* from) {
  return load_bits<Vector<T>>(from);
}

SPN_HD void store_as(float* to, Vector<float> v) {
  store_bits(to, v);
}
SPN_HD void store_as(double* to, Vector<double> v) {
  store_bits(to, v);
}

template <typename T>
SPN_HD Vector<T> load_as(const uint8_t* from) {
  return __builtin_convertvector(load_bits<Lanes<uint8_t, T>>(from), Vector<T>);
}
template <typename V>
SPN_HD void store_as(uint8_t* to, V v) {
  using T = std::decay_t<decltype(v[0])>;
  store_bits(to, __builtin_convertvector(v, Lanes<uint8_t, T>));
}

// Store a whole cache line to memory without reading it first. Only available if a vector is as wide as a cache line.
#if SPN_VECTOR_BYTES == 64
constexpr bool kStreams = true;
template <typename T>
SPN_HD void stream_as(T* to, Vector<T> v) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), bit_cast<__m512i>(v));
}
SPN_HD void finish_streams() {
  _mm_sfence();
}
#else
constexpr bool kStreams = false;
template <typename T>
SPN_HD void stream_as(T* to, Vector<T> v) {
  store_as(to, v);
}
SPN_HD void finish_streams() {}
#endif

// bfloat16 is the upper half of a float. The store rounds to nearest even and preserves NaN.
template <typename T>
SPN_HD Vector<T> load_as(const torch::headeronly::BFloat16* from) {
  const auto bits = load_bits<Lanes<uint16_t, T>>(from);
  return bit_cast<Vector<T>>(__builtin_convertvector(bits, Vector<uint32_t>) << 16);
}

SPN_HD void store_as(torch::headeronly::BFloat16* to, Vector<float> v) {
  const auto bits = bit_cast<Vector<uint32_t>>(v);
  const Vector<uint32_t> rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const auto is_number = bit_cast<Vector<uint32_t>>(v == v);
  const Vector<uint32_t> kept = (rounded & is_number) | (0x7fc0u & ~is_number);
  store_bits(to, __builtin_convertvector(kept, Lanes<uint16_t, float>));
}

#if SPN_VECTOR_BYTES == 64
template <typename T>
SPN_HD Vector<T> load_as(const torch::headeronly::Half* from) {
  return bit_cast<Vector<T>>(_mm512_cvtph_ps(load_bits<__m256i>(from)));
}
SPN_HD void store_as(torch::headeronly::Half* to, Vector<float> v) {
  store_bits(to, _mm512_cvtps_ph(bit_cast<__m512>(v), _MM_FROUND_TO_NEAREST_INT));
}
#elif SPN_VECTOR_BYTES == 32
template <typename T>
SPN_HD Vector<T> load_as(const torch::headeronly::Half* from) {
  return bit_cast<Vector<T>>(_mm256_cvtph_ps(load_bits<__m128i>(from)));
}
SPN_HD void store_as(torch::headeronly::Half* to, Vector<float> v) {
  store_bits(to, _mm256_cvtps_ph(bit_cast<__m256>(v), _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__aarch64__)
template <typename T>
SPN_HD Vector<T> load_as(const torch::headeronly::Half* from) {
  return bit_cast<Vector<T>>(vcvt_f32_f16(load_bits<float16x4_t>(from)));
}
SPN_HD void store_as(torch::headeronly::Half* to, Vector<float> v) {
  store_bits(to, vcvt_f16_f32(bit_cast<float32x4_t>(v)));
}
#else
template <typename T>
SPN_HD Vector<T> load_as(const torch::headeronly::Half* from) {
  Vector<T> v;
  for (int l = 0; l < kLanes<T>; ++l) v[l] = static_cast<T>(from[l]);
  return v;
}
SPN_HD void store_as(torch::headeronly::Half* to, Vector<float> v) {
  for (int l = 0; l < kLanes<float>; ++l) to[l] = static_cast<torch::headeronly::Half>(v[l]);
}
#endif

// Exchange the off-diagonal kStage x kStage blocks of two rows.
template <int kStage, typename V, int... kLane>
SPN_HD void exchange_blocks(V& a, V& b, std::integer_sequence<int, kLane...>) {
  constexpr int n = sizeof...(kLane);
  const V low = __builtin_shufflevector(a, b, ((kLane & kStage) ? n + kLane - kStage : kLane)...);
  const V high = __builtin_shufflevector(a, b, ((kLane & kStage) ? n + kLane : kLane + kStage)...);
  a = low;
  b = high;
}

// Interleave units of kUnit values from a and b within every kQuarter values. a receives the lower half of each result,
// b the upper half.
template <int kUnit, int kQuarter, typename V, int... kLane>
SPN_HD void take_turns(V& a, V& b, std::integer_sequence<int, kLane...>) {
  constexpr int n = sizeof...(kLane);
  const auto from = [](int lane, int half) constexpr {
    const int within = lane % kQuarter, unit = within / kUnit;
    return (unit % 2) * n + lane - within + half * kQuarter / 2 + unit / 2 * kUnit + within % kUnit;
  };
  const V low = __builtin_shufflevector(a, b, from(kLane, 0)...);
  const V high = __builtin_shufflevector(a, b, from(kLane, 1)...);
  a = low;
  b = high;
}

template <typename T, int kStage>
SPN_HD void transpose_quarters(Vector<T> (&row)[kLanes<T>]) {
  if constexpr (kStage < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (!(i & kStage)) {
        exchange_blocks<kStage>(row[i], row[i + kStage], std::make_integer_sequence<int, kLanes<T>>{});
      }
    }
    transpose_quarters<T, 2 * kStage>(row);
  }
}

// Transpose kLanes x kLanes values in registers. Instructions that work within 16 bytes first transpose the squares of
// 16 bytes by as many rows as 16 bytes hold values. Then the grid of these squares is transposed.
template <typename T>
SPN_HD void transpose_tile(Vector<T> (&row)[kLanes<T>]) {
  constexpr int m = 16 / sizeof(T);
  constexpr auto lanes = std::make_integer_sequence<int, kLanes<T>>{};
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; i += m) {
    if constexpr (m == 2) {
      take_turns<1, m>(row[i], row[i + 1], lanes);
    } else {
      take_turns<1, m>(row[i], row[i + 1], lanes);      // a0 b0 a1 b1,  a2 b2 a3 b3
      take_turns<1, m>(row[i + 2], row[i + 3], lanes);  // c0 d0 c1 d1,  c2 d2 c3 d3
      take_turns<2, m>(row[i], row[i + 2], lanes);      // a0 b0 c0 d0,  a1 b1 c1 d1
      take_turns<2, m>(row[i + 1], row[i + 3], lanes);  // a2 b2 c2 d2,  a3 b3 c3 d3
      const Vector<T> second = row[i + 2];
      row[i + 2] = row[i + 1];
      row[i + 1] = second;
    }
  }
  transpose_quarters<T, m>(row);
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
