// Moves blocks of lines between a plane in memory and scratch where positions are contiguous.
//
// A vertical sweep's lines are rows and are copied as they are. A horizontal sweep's lines are columns: a block of 16 of
// them is a strip one cache line wide, transposed in registers, so that every line of memory is touched once. The
// hardware prefetcher does not follow columns, so the next block's strip is asked for while this one is moved.
#pragma once

#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Lines first .. first + count - 1 of a sweep; the block worked on next starts `next` lines further.
struct Block {
  int64_t first, count, next;
};

// A block of columns as a strip of rows: where its leftmost column is, and which of its lines that column is.
struct Strip {
  int64_t offset, first_line, step;

  Strip(const Sweep& s, const Block& b)
      : offset(s.line_stride > 0 ? s.offset(b.first, 0) : s.offset(b.first + b.count - 1, 0)),
        first_line(s.line_stride > 0 ? 0 : b.count - 1),
        step(s.line_stride) {}
  int64_t line_of_column(int64_t c) const { return first_line + step * c; }
};

// lines[i * stride + j] = read(offset of pixel (first + i, j)); reads whole vectors along rows of memory.
template <typename T, typename Read>
SPN_HD void gather_lines(const Sweep& s, const Block& b, T* __restrict lines, int64_t stride, Read read) {
  constexpr int n = kLanes<T>;
  if (s.position_stride == 1) {
    for (int64_t i = 0; i < b.count; ++i) {
      const int64_t offset = s.offset(b.first + i, 0);
      T* __restrict line = lines + i * stride;
      int64_t j = 0;
      for (; j + n <= s.positions; j += n) store_as(line + j, read.vector(offset + j));
      for (; j < s.positions; ++j) line[j] = read(offset + j);
    }
    return;
  }
  const Strip strip(s, b);
  const int64_t row_stride = s.position_stride, ahead = b.next * s.line_stride;
  for (int64_t c = 0; c < b.count; c += n) {
    int64_t j = 0;
    if (b.count - c >= n) {
      for (; j + n <= s.positions; j += n) {
        Vector<T> tile[n];
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r) {
          const int64_t offset = strip.offset + (j + r) * row_stride + c;
          read.prefetch(offset + ahead);
          tile[r] = read.vector(offset);
        }
        transpose_tile<T>(tile);
#pragma GCC unroll 16
        for (int l = 0; l < n; ++l) store_as(lines + strip.line_of_column(c + l) * stride + j, tile[l]);
      }
    }
    for (; j < s.positions; ++j) {
      for (int64_t l = c; l < b.count && l < c + n; ++l) {
        lines[strip.line_of_column(l) * stride + j] = read(strip.offset + j * row_stride + l);
      }
    }
  }
}

// write(offset of pixel (first + i, j), lines[i * stride + j]); writes whole vectors along rows of memory.
template <typename T, typename Write>
SPN_HD void scatter_lines(const Sweep& s, const Block& b, const T* __restrict lines, int64_t stride, Write write) {
  constexpr int n = kLanes<T>;
  if (s.position_stride == 1) {
    for (int64_t i = 0; i < b.count; ++i) {
      const int64_t offset = s.offset(b.first + i, 0);
      const T* __restrict line = lines + i * stride;
      int64_t j = 0;
      for (; j + n <= s.positions; j += n) write.vector(offset + j, load_as<T>(line + j));
      for (; j < s.positions; ++j) write(offset + j, line[j]);
    }
    return;
  }
  const Strip strip(s, b);
  const int64_t row_stride = s.position_stride, ahead = b.next * s.line_stride;
  for (int64_t c = 0; c < b.count; c += n) {
    int64_t j = 0;
    if (b.count - c >= n) {
      for (; j + n <= s.positions; j += n) {
        Vector<T> tile[n];
#pragma GCC unroll 16
        for (int l = 0; l < n; ++l) tile[l] = load_as<T>(lines + strip.line_of_column(c + l) * stride + j);
        transpose_tile<T>(tile);
#pragma GCC unroll 16
        for (int r = 0; r < n; ++r) {
          const int64_t offset = strip.offset + (j + r) * row_stride + c;
          write.prefetch(offset + ahead);
          write.vector(offset, tile[r]);
        }
      }
    }
    for (; j < s.positions; ++j) {
      for (int64_t l = c; l < b.count && l < c + n; ++l) {
        write(strip.offset + j * row_stride + l, lines[strip.line_of_column(l) * stride + j]);
      }
    }
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
