// Interleaved planes, for maps whose lines are too short to fill the lanes of a register. Vector i of an interleaved
// plane holds pixel i of kLanes planes. A step works on whole vectors in every direction, and the neighbours of a
// position are whole vectors, too.
#pragma once

#include "access.h"
#include "lines.h"

namespace spn {
namespace SPN_CPU_CAPABILITY {

// Maps the pixels of a rectangle, row by row, to vectors.
struct Window {
  int64_t first, rows, columns;  // first: offset of its first pixel in a plane with rows of `pitch` pixels
  int64_t pitch;
  int64_t vector, row_step, column_step;  // the vector of that pixel; steps to the next row and column

  int64_t pixels() const { return rows * columns; }
};

// A whole plane as one row: pixel i maps to vector i.
inline Window row_of(int64_t pixels) {
  return {0, 1, pixels, pixels, 0, pixels, 1};
}

// The lines of a block, with `positions` vectors each, in the order of the sweep.
inline Window window_of(const Sweep& s, const Block& b) {
  const Strip strip(s, b);
  const int64_t step = s.line_stride > 0 ? s.positions : -s.positions;
  const int64_t vector = strip.first_line * s.positions;
  if (s.position_stride == 1) return {strip.offset, b.count, s.positions, s.positions, vector, step, 1};
  return {strip.offset, s.positions, b.count, s.position_stride, vector, 1, step};
}

// Iterates over the vectors of the pixels of a window.
class VectorsOf {
 public:
  explicit VectorsOf(const Window& w)
      : vector_(w.vector),
        column_step_(w.column_step),
        to_next_row_(w.row_step - w.columns * w.column_step),
        columns_(w.columns),
        left_(w.columns) {}

  SPN_HD int64_t next() {
    const int64_t here = vector_;
    vector_ += column_step_;
    if (--left_ == 0) {
      left_ = columns_;
      vector_ += to_next_row_;
    }
    return here;
  }

 private:
  int64_t vector_, column_step_, to_next_row_, columns_, left_;
};

// Call f(pixel, count) for runs of consecutive pixels. If the window is as wide as the plane, it is a single run.
template <typename F>
SPN_HD void for_runs(const Window& w, F f) {
  if (w.columns == w.pitch) return f(w.first, w.pixels());
  for (int64_t r = 0; r < w.rows; ++r) f(w.first + r * w.pitch, w.columns);
}

// Create one access per lane.
template <typename T, typename Make>
SPN_HD auto per_lane(Make make) {
  struct {
    decltype(make(int64_t{0})) lane[kLanes<T>];
  } accesses;
  for (int64_t l = 0; l < kLanes<T>; ++l) accesses.lane[l] = make(l);
  return accesses;
}

// Copy each value of `from` to all lanes of a vector.
template <typename T>
SPN_HD void spread(const T* __restrict from, int64_t count, T* __restrict to) {
  for (int64_t j = 0; j < count; ++j) store_as(to + j * kLanes<T>, Vector<T>{} + from[j]);
}

// Set to[j] to the sum over the lanes of vector j.
template <typename T>
SPN_HD void sum_lanes(const T* __restrict from, int64_t count, T* __restrict to) {
  constexpr int n = kLanes<T>;
  int64_t j = 0;
  for (; j + n <= count; j += n) {
    Vector<T> tile[n];
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) tile[i] = load_as<T>(from + (j + i) * n);
    transpose_tile<T>(tile);
    Vector<T> sum = tile[0];
#pragma GCC unroll 16
    for (int l = 1; l < n; ++l) sum += tile[l];
    store_as(to + j, sum);
  }
  for (; j < count; ++j) {
    T sum = from[j * n];
    for (int l = 1; l < n; ++l) sum += from[j * n + l];
    to[j] = sum;
  }
}

// Load a tile. Each row holds kLanes consecutive pixels of one lane. It is zero for lanes from `count` on and for
// pixels from `pixels` on.
template <typename T, typename Read>
SPN_HD void load_tile(const Read* read, int64_t count, int64_t offset, int64_t pixels, Vector<T> (&tile)[kLanes<T>]) {
  constexpr int n = kLanes<T>;
  if (count == n && pixels >= n) {
#pragma GCC unroll 16
    for (int l = 0; l < n; ++l) tile[l] = read[l].vector(offset);
    return;
  }
  for (int l = 0; l < n; ++l) {
    tile[l] = Vector<T>{};
    for (int64_t i = 0; l < count && i < std::min<int64_t>(n, pixels); ++i) tile[l][i] = read[l](offset + i);
  }
}

// Set to[vector * kLanes + l] = read[l](pixel), and zero for lanes from `count` on. Planes have `plane` pixels. The
// pixels of the next call lie `ahead` pixels further and are prefetched.
template <typename T, typename Read>
__attribute__((noinline)) void interleave(const Window& w, int64_t plane, const Read* read, int64_t count,
                                          int64_t ahead, T* to) {
  constexpr int n = kLanes<T>;
  VectorsOf vectors(w);
  for_runs(w, [&](int64_t first, int64_t pixels) __attribute__((always_inline)) {
    for (int64_t p = 0; p < pixels; p += n) {
      const int64_t offset = first + p;
      if (ahead) {
        for (int l = 0; l < n; ++l) read[l].prefetch(offset + ahead);
      }
      Vector<T> tile[n];
      load_tile<T>(read, count, offset, plane - offset, tile);
      transpose_tile<T>(tile);
      if (p + n <= pixels) {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) store_as(to + vectors.next() * n, tile[i]);
      } else {
        for (int i = 0; p + i < pixels; ++i) store_as(to + vectors.next() * n, tile[i]);
      }
    }
  });
}

// Store consecutive pixels of each lane from the rows of a tile. If `size` lanes share a plane, store their sum.
template <typename T, typename Write>
SPN_HD void store_tile(Vector<T> (&tile)[kLanes<T>], const Write* write, int64_t count, int64_t size, int64_t offset,
                       int64_t pixels) {
  constexpr int n = kLanes<T>;
  if (count == n && size == 1 && pixels >= n) {
#pragma GCC unroll 16
    for (int l = 0; l < n; ++l) write[l].vector(offset, tile[l]);
    return;
  }
  for (int64_t l = 0; l < count; l += size) {
    Vector<T> sum = tile[l];
    for (int64_t k = 1; k < size; ++k) sum += tile[l + k];
    if (pixels >= n) {
      write[l].vector(offset, sum);
    } else {
      for (int64_t i = 0; i < pixels; ++i) write[l](offset + i, sum[i]);
    }
  }
}

// Call write[l](pixel, from[vector * kLanes + l]) for the first `count` lanes. If `size` neighbouring lanes share a
// plane, pass their sum to the write of the first.
template <typename T, typename From, typename Write>
__attribute__((noinline)) void deinterleave(const Window& w, const From* from, int64_t count, int64_t size,
                                            const Write* write) {
  constexpr int n = kLanes<T>;
  VectorsOf vectors(w);
  for_runs(w, [&](int64_t first, int64_t pixels) __attribute__((always_inline)) {
    for (int64_t p = 0; p < pixels; p += n) {
      Vector<T> tile[n];
      if (p + n <= pixels) {
#pragma GCC unroll 16
        for (int i = 0; i < n; ++i) tile[i] = load_as<T>(from + vectors.next() * n);
      } else {
        for (int i = 0; i < n; ++i) tile[i] = p + i < pixels ? load_as<T>(from + vectors.next() * n) : Vector<T>{};
      }
      transpose_tile<T>(tile);
      store_tile<T>(tile, write, count, size, first + p, pixels - p);
    }
  });
}

// Set lines[(i * positions + j) * kLanes ...] to the vector of pixel (first + i, j) of an interleaved plane.
template <typename T>
__attribute__((noinline)) void gather_vectors(const Sweep& s, const Block& b, const T* plane, T* __restrict lines) {
  constexpr int n = kLanes<T>;
  for (int64_t j = 0; j < s.positions; ++j) {
    for (int64_t i = 0; i < b.count; ++i) {
      store_as(lines + (i * s.positions + j) * n, load_as<T>(plane + s.offset(b.first + i, j) * n));
    }
  }
}

// Call write(offset of that vector, lines[...]): the inverse of gather_vectors.
template <typename T, typename Write>
SPN_HD void scatter_vectors(const Sweep& s, const Block& b, const T* __restrict lines, Write write) {
  constexpr int n = kLanes<T>;
  const bool lies_in_lines = s.position_stride == 1;
  const int64_t outer = lies_in_lines ? b.count : s.positions, inner = lies_in_lines ? s.positions : b.count;
  for (int64_t o = 0; o < outer; ++o) {
    for (int64_t k = 0; k < inner; ++k) {
      const int64_t i = lies_in_lines ? o : k, j = lies_in_lines ? k : o;
      write.vector(s.offset(b.first + i, j) * n, load_as<T>(lines + (i * s.positions + j) * n));
    }
  }
}

}  // namespace SPN_CPU_CAPABILITY
}  // namespace spn
