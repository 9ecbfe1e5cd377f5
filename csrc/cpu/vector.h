// A register full of values, and its way from and to memory in every dtype.
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

// As many narrower values as a Vector<T> has lanes.
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

// Into the second level of the cache: the lines asked for together are many, and columns of a power of two apart would
// drive each other out of the few sets of the first level.
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

// A store that writes a whole cache line to memory without reading it first. Only where a vector is a cache line.
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

// bfloat16 is the upper half of a float; storing rounds to nearest even, and keeps a NaN a NaN.
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

template <int kStage, typename V, int... kLane>
SPN_HD void exchange_blocks(V& a, V& b, std::integer_sequence<int, kLane...>) {
  constexpr int n = sizeof...(kLane);
  const V low = __builtin_shufflevector(a, b, ((kLane & kStage) ? n + kLane - kStage : kLane)...);
  const V high = __builtin_shufflevector(a, b, ((kLane & kStage) ? n + kLane : kLane + kStage)...);
  a = low;
  b = high;
}

// Transposes kLanes x kLanes values in registers: stage s exchanges the off-diagonal s x s blocks.
template <typename T, int kStage = 1>
SPN_HD void transpose_tile(Vector<T> (&row)[kLanes<T>]) {
  if constexpr (kStage < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (!(i & kStage)) {
        exchange_blocks<kStage>(row[i], row[i + kStage], std::make_integer_sequence<int, kLanes<T>>{});
      }
    }
    transpose_tile<T, 2 * kStage>(row);
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
