// Moves blocks of lines between a plane in memory and scratch, where positions are contiguous.
//
// The lines of a vertical sweep are rows and are copied directly. The lines of a horizontal sweep are columns. A block
// of columns is a strip, one or more cache lines wide, that is transposed in registers, so that every cache line is
// accessed once. The hardware prefetcher does not follow columns, so this code prefetches rows further down.
#pragma once

#include "vector.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// A block: lines first .. first + count - 1 of a sweep. The block processed next starts `next` lines further.
struct Block {
  int64_t first, count, next;
};

// A block of columns as a strip of rows: the offset of its leftmost column, and the index of the line in that column.
struct Strip {
  int64_t offset, first_line, step;

  Strip(const Sweep& s, const Block& b)
      : offset(s.line_stride > 0 ? s.offset(b.first, 0) : s.offset(b.first + b.count - 1, 0)),
        first_line(s.line_stride > 0 ? 0 : b.count - 1),
        step(s.line_stride) {}
  int64_t line_of_column(int64_t c) const { return first_line + step * c; }
};

// Iterates over equally spaced offsets. Without the asm barrier the compiler computes all offsets of a tile in advance
// and spills them to the stack.
struct Steps {
  int64_t offset, step;

  Steps(int64_t first, int64_t step) : offset(first), step(step) {}
  SPN_HD int64_t next() {
    const int64_t here = offset;
    offset += step;
    asm("" : "+r"(offset));
    return here;
  }
};

// Prefetch distance: lines of a vertical sweep, rows of a horizontal sweep.
constexpr int64_t kLinesAhead = 2, kRowsAhead = 128;

// Return the offset of a pixel kRowsAhead rows further down the strip or, past its end, as far down the strip of the
// next block. If rows do not begin at a cache line, a tile of columns spans two cache lines. The offset then lies in
// the one on the side to which the sweep moves, because the other is already in the cache.
template <typename T>
int64_t offset_ahead(const Sweep& s, const Block& b, const Strip& strip, int64_t j, int64_t c) {
  const int64_t row = j + std::min(kRowsAhead, s.positions);
  const int64_t column = s.line_stride > 0 ? c + kLanes<T> - 1 : c;
  const int64_t offset = strip.offset + column + row * s.position_stride;
  return row < s.positions ? offset : offset + b.next * s.line_stride - s.positions * s.position_stride;
}

// The part of a strip that whole tiles cover.
struct Extent {
  int64_t rows, columns;
};

template <typename T>
Extent whole_tiles(const Sweep& s, const Block& b) {
  return {s.positions / kLanes<T> * kLanes<T>, b.count / kLanes<T> * kLanes<T>};
}

// Call f(row, column) for the pixels of a strip that whole tiles do not cover.
template <typename F>
SPN_HD void for_pixels_outside(const Sweep& s, const Block& b, Extent whole, F f) {
  for (int64_t c = whole.columns; c < b.count; ++c) {
    for (int64_t j = 0; j < whole.rows; ++j) f(j, c);
  }
  for (int64_t j = whole.rows; j < s.positions; ++j) {
    for (int64_t c = 0; c < b.count; ++c) f(j, c);
  }
}

// Set lines[i * stride + j] = read(offset of pixel (first + i, j)). Reads whole vectors along rows of memory.
template <typename T, typename Read>
SPN_HD void gather_lines(const Sweep& s, const Block& b, T* __restrict lines, int64_t stride, Read read) {
  constexpr int n = kLanes<T>;
  if (s.position_stride == 1) {
    const int64_t later_lines = kLinesAhead * s.line_stride;
    for (int64_t i = 0; i < b.count; ++i) {
      const int64_t offset = s.offset(b.first + i, 0);
      T* __restrict line = lines + i * stride;
      int64_t j = 0;
      for (; j + n <= s.positions; j += n) {
        read.prefetch(offset + j + later_lines);
        store_as(line + j, read.vector(offset + j));
      }
      for (; j < s.positions; ++j) line[j] = read(offset + j);
    }
    return;
  }
  const Strip strip(s, b);
  const int64_t row_stride = s.position_stride;
  const Extent whole = whole_tiles<T>(s, b);
  for (int64_t j = 0; j < whole.rows; j += n) {
    for (int64_t c = 0; c < whole.columns; c += n) {
      Vector<T> tile[n];
      Steps row(strip.offset + j * row_stride + c, row_stride), later(offset_ahead<T>(s, b, strip, j, c), row_stride);
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) {
        read.prefetch(later.next());
        tile[r] = read.vector(row.next());
      }
      transpose_tile<T>(tile);
      Steps line(strip.line_of_column(c) * stride + j, strip.step * stride);
#pragma GCC unroll 16
      for (int l = 0; l < n; ++l) store_as(lines + line.next(), tile[l]);
    }
  }
  for_pixels_outside(s, b, whole, [&](int64_t j, int64_t c) {
    lines[strip.line_of_column(c) * stride + j] = read(strip.offset + j * row_stride + c);
  });
}

// Call write(offset of pixel (first + i, j), lines[i * stride + j]). Writes whole vectors along rows of memory.
template <typename T, typename Write>
SPN_HD void scatter_lines(const Sweep& s, const Block& b, const T* __restrict lines, int64_t stride, Write write) {
  constexpr int n = kLanes<T>;
  if (s.position_stride == 1) {
    const int64_t later_lines = kLinesAhead * s.line_stride;
    for (int64_t i = 0; i < b.count; ++i) {
      const int64_t offset = s.offset(b.first + i, 0);
      const T* __restrict line = lines + i * stride;
      int64_t j = 0;
      for (; j + n <= s.positions; j += n) {
        write.prefetch(offset + j + later_lines);
        write.vector(offset + j, load_as<T>(line + j));
      }
      for (; j < s.positions; ++j) write(offset + j, line[j]);
    }
    return;
  }
  const Strip strip(s, b);
  const int64_t row_stride = s.position_stride;
  const Extent whole = whole_tiles<T>(s, b);
  for (int64_t j = 0; j < whole.rows; j += n) {
    for (int64_t c = 0; c < whole.columns; c += n) {
      Vector<T> tile[n];
      Steps line(strip.line_of_column(c) * stride + j, strip.step * stride);
#pragma GCC unroll 16
      for (int l = 0; l < n; ++l) tile[l] = load_as<T>(lines + line.next());
      transpose_tile<T>(tile);
      Steps row(strip.offset + j * row_stride + c, row_stride), later(offset_ahead<T>(s, b, strip, j, c), row_stride);
#pragma GCC unroll 16
      for (int r = 0; r < n; ++r) {
        write.prefetch(later.next());
        write.vector(row.next(), tile[r]);
      }
    }
  }
  for_pixels_outside(s, b, whole, [&](int64_t j, int64_t c) {
    write(strip.offset + j * row_stride + c, lines[strip.line_of_column(c) * stride + j]);
  });
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
