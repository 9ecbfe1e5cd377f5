// Moves blocks of lines between a plane in memory and scratch where positions are contiguous.
//
// A vertical sweep's lines are rows and are copied as they are. A horizontal sweep's lines are columns: a block of them
// is a strip one or more cache lines wide, transposed in registers, so that every line of memory is touched once. The
// hardware's prefetcher does not follow columns: rows further down are asked for here.
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

// Equally spaced offsets, one after the other. Left to itself the compiler works out all of a tile's in advance, and
// then has nowhere but the stack to keep them.
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

// How far ahead memory is asked for: lines of a vertical sweep, rows of a horizontal one.
constexpr int64_t kLinesAhead = 2, kRowsAhead = 128;

// A pixel kRowsAhead further down the strip; past its end, that far down the next block's strip.
// Where rows do not begin with a cache line, a tile of columns lies in two of them: the one meant is that on the side
// to which the sweep moves, for the other is at hand.
template <typename T>
int64_t offset_ahead(const Sweep& s, const Block& b, const Strip& strip, int64_t j, int64_t c) {
  const int64_t row = j + std::min(kRowsAhead, s.positions);
  const int64_t column = s.line_stride > 0 ? c + kLanes<T> - 1 : c;
  const int64_t offset = strip.offset + column + row * s.position_stride;
  return row < s.positions ? offset : offset + b.next * s.line_stride - s.positions * s.position_stride;
}

// How much of a strip whole tiles cover.
struct Extent {
  int64_t rows, columns;
};

template <typename T>
Extent whole_tiles(const Sweep& s, const Block& b) {
  return {s.positions / kLanes<T> * kLanes<T>, b.count / kLanes<T> * kLanes<T>};
}

// Calls f(row, column) for the pixels of a strip that they do not cover.
template <typename F>
SPN_HD void for_pixels_outside(const Sweep& s, const Block& b, Extent whole, F f) {
  for (int64_t c = whole.columns; c < b.count; ++c) {
    for (int64_t j = 0; j < whole.rows; ++j) f(j, c);
  }
  for (int64_t j = whole.rows; j < s.positions; ++j) {
    for (int64_t c = 0; c < b.count; ++c) f(j, c);
  }
}

// lines[i * stride + j] = read(offset of pixel (first + i, j)); reads whole vectors along rows of memory.
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

// write(offset of pixel (first + i, j), lines[i * stride + j]); writes whole vectors along rows of memory.
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
