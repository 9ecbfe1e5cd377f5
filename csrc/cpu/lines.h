// Moves blocks of lines between a plane in memory and scratch where positions are contiguous.
//
// A vertical sweep's lines are rows and are copied as they are. A horizontal sweep's lines are columns: a block of up to
// 16 of them is a strip one cache line wide, transposed in registers, so every line of memory is touched once.
#pragma once

#include <cstdint>

#include "../sweep.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// As many values as a vector register of this instruction set holds.
template <typename T>
constexpr int kLanes = SPN_VECTOR_BYTES / sizeof(T);

// Transposes kLanes x kLanes values in registers: stage s exchanges the off-diagonal s x s blocks.
template <typename T>
SPN_HD void transpose_tile(T (&tile)[kLanes<T>][kLanes<T>]) {
  constexpr int n = kLanes<T>;
  typedef T Vector __attribute__((vector_size(SPN_VECTOR_BYTES), may_alias));
  typedef decltype(Vector{} < Vector{}) Index;
  Vector row[n];
  for (int i = 0; i < n; ++i) row[i] = *reinterpret_cast<const Vector*>(tile[i]);
#pragma GCC unroll 8
  for (int s = 1; s < n; s *= 2) {
    Index low, high;
    for (int l = 0; l < n; ++l) {
      low[l] = (l & s) ? n + l - s : l;
      high[l] = (l & s) ? n + l : l + s;
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      if (i & s) continue;
      const Vector a = row[i], b = row[i + s];
      row[i] = __builtin_shuffle(a, b, low);
      row[i + s] = __builtin_shuffle(a, b, high);
    }
  }
  for (int i = 0; i < n; ++i) *reinterpret_cast<Vector*>(tile[i]) = row[i];
}

// Offset of the leftmost column of lines t0 .. t0 + count - 1, and which column of that strip line i is.
struct Strip {
  int64_t offset;
  int64_t first, step;

  Strip(const Sweep& s, int64_t t0, int64_t count)
      : offset(s.line_stride > 0 ? s.offset(t0, 0) : s.offset(t0 + count - 1, 0)),
        first(s.line_stride > 0 ? 0 : count - 1),
        step(s.line_stride) {}
  int64_t line_of_column(int64_t c) const { return first + step * c; }
};

// lines[i * stride + j] = read(offset of pixel (t0 + i, j)); read is called along rows of memory.
template <typename T, typename Read>
SPN_HD void gather_lines(const Sweep& s, int64_t t0, int64_t count, T* __restrict lines, int64_t stride, Read read) {
  if (s.position_stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t offset = s.offset(t0 + i, 0);
      T* __restrict line = lines + i * stride;
#pragma GCC ivdep
      for (int64_t j = 0; j < s.positions; ++j) line[j] = read(offset + j);
    }
    return;
  }
  constexpr int n = kLanes<T>;
  const Strip strip(s, t0, count);
  const int64_t row_stride = s.position_stride;
  for (int64_t c = 0; c < count; c += n) {
    int64_t j = 0;
    if (count - c >= n) {
      for (; j + n <= s.positions; j += n) {
        alignas(64) T tile[n][n];
        for (int r = 0; r < n; ++r) {
          const int64_t offset = strip.offset + (j + r) * row_stride + c;
#pragma GCC unroll 16
          for (int l = 0; l < n; ++l) tile[r][l] = read(offset + l);
        }
        transpose_tile<T>(tile);
        for (int l = 0; l < n; ++l) {
          T* line = lines + strip.line_of_column(c + l) * stride + j;
          for (int r = 0; r < n; ++r) line[r] = tile[l][r];
        }
      }
    }
    for (; j < s.positions; ++j) {
      for (int64_t l = c; l < count && l < c + n; ++l) {
        lines[strip.line_of_column(l) * stride + j] = read(strip.offset + j * row_stride + l);
      }
    }
  }
}

// write(offset of pixel (t0 + i, j), lines[i * stride + j]); write is called along rows of memory.
template <typename T, typename Write>
SPN_HD void scatter_lines(const Sweep& s, int64_t t0, int64_t count, const T* __restrict lines, int64_t stride,
                          Write write) {
  if (s.position_stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t offset = s.offset(t0 + i, 0);
      const T* __restrict line = lines + i * stride;
#pragma GCC ivdep
      for (int64_t j = 0; j < s.positions; ++j) write(offset + j, line[j]);
    }
    return;
  }
  constexpr int n = kLanes<T>;
  const Strip strip(s, t0, count);
  const int64_t row_stride = s.position_stride;
  for (int64_t c = 0; c < count; c += n) {
    int64_t j = 0;
    if (count - c >= n) {
      for (; j + n <= s.positions; j += n) {
        alignas(64) T tile[n][n];
        for (int l = 0; l < n; ++l) {
          const T* line = lines + strip.line_of_column(c + l) * stride + j;
          for (int r = 0; r < n; ++r) tile[l][r] = line[r];
        }
        transpose_tile<T>(tile);
        for (int r = 0; r < n; ++r) {
          const int64_t offset = strip.offset + (j + r) * row_stride + c;
#pragma GCC ivdep
          for (int l = 0; l < n; ++l) write(offset + l, tile[r][l]);
        }
      }
    }
    for (; j < s.positions; ++j) {
      for (int64_t l = c; l < count && l < c + n; ++l) {
        write(strip.offset + j * row_stride + l, lines[strip.line_of_column(l) * stride + j]);
      }
    }
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
