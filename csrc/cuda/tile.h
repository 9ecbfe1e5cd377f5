// A warp's tile: 32 positions x L lines (L a power of two) of one plane, staged in scratch memory.
//
//   vertical sweep, a line is a row                  horizontal sweep, a line is a column
//
//   line 0     | lane 0 | lane 1 | ... | lane 31 |   lane 0     | line 0 | line 1 | ... | line L-1 |
//   line 1     | lane 0 | lane 1 | ... | lane 31 |   lane 1     | line 0 | line 1 | ... | line L-1 |
//   ...                                              ...
//   line L-1   | lane 0 | lane 1 | ... | lane 31 |   lane 31    | line 0 | line 1 | ... | line L-1 |
//
// A tile's rows are pieces of the plane's rows, so the warp copies whole sectors of memory whichever way the sweep runs,
// and each lane then finds its own position's values: that is the transposition. The lanes of one line would meet in
// few banks where a row is shorter than 32 words; exchanging a row's words by an exclusive or with its number spreads
// them over all banks without padding.
#pragma once

#include "../sweep.h"
#include "simt.h"

namespace spn {
namespace cuda {

constexpr int kWarp = 32;

constexpr int log2_of(int value) { return value <= 1 ? 0 : 1 + log2_of(value / 2); }

template <typename S>
struct Tile {
  // Values of 2 bytes are exchanged in pairs, as words.
  static constexpr int kPairLog2 = sizeof(S) < 4 ? 1 : 0;
  static constexpr int kWordsLog2 = sizeof(S) > 4 ? 4 : 5;  // words of 4 bytes, or 8, in all banks

  int lane, values;                // values of the tile, 32 L
  int log2_columns, rows, columns; // rows and columns that lie inside the map
  int shift, mask;                 // of the exclusive or
  int first, step;                 // the column of line i is first + step * i, horizontally
  bool horizontal;
  int64_t offset, row_stride;      // of the tile's first row in the plane

  SPN_DEVICE Tile(const Sweep& s, int64_t t0, int count, int64_t j0, int lines_log2)
      : lane(static_cast<int>(threadIdx.x) % kWarp), values(kWarp << lines_log2), horizontal(s.position_stride != 1) {
    const int inside = static_cast<int>(s.positions - j0 < kWarp ? s.positions - j0 : kWarp);
    offset = s.offset(t0, j0);
    if (horizontal) {
      const bool mirrored = s.line_stride < 0;
      first = mirrored ? count - 1 : 0;
      step = mirrored ? -1 : 1;
      offset -= first;
      row_stride = s.position_stride;
      log2_columns = lines_log2;
      rows = inside;
      columns = count;
      mask = (1 << lines_log2 >> kPairLog2) - 1;
      shift = kWordsLog2 + kPairLog2 - lines_log2;
      if (shift < 0) shift = 0;
    } else {
      first = step = mask = shift = 0;
      row_stride = s.line_stride;
      log2_columns = 5;
      rows = count;
      columns = inside;
    }
  }

  SPN_DEVICE int at(int row, int column) const {
    const int word = (column >> kPairLog2) ^ ((row >> shift) & mask);
    return (row << log2_columns) + (word << kPairLog2) + (column & ((1 << kPairLog2) - 1));
  }

  // Where this lane's position has its value of line i.
  SPN_DEVICE int line(int i) const { return horizontal ? at(lane, first + step * i) : i * kWarp + lane; }

  // f(index in the tile, offset in the plane, inside) for the values that this lane copies, kTogether neighbours a call;
  // the lanes of a warp move along rows of memory.
  template <int kTogether, typename F>
  SPN_DEVICE void for_values(int begin, int end, F f) const {
    for (int u = begin + lane * kTogether; u < end; u += kWarp * kTogether) {
      next_turn();
      const int row = u >> log2_columns, column = u & ((1 << log2_columns) - 1);
      f(at(row, column), offset + row * row_stride + column, row < rows && column < columns);
    }
  }
};

// Stages a tile. `paired`: 2-byte values may be moved in pairs. Asynchronous where kAsync: scratch is shared memory and
// the plane global.
template <bool kAsync, typename S>
SPN_DEVICE void copy_in(S* tile, const S* plane, const Tile<S>& t, bool paired) {
  if constexpr (sizeof(S) >= 4) {
    t.template for_values<1>(0, t.values, [&](int k, int64_t o, bool inside) {
      if (!inside) return;
      if constexpr (kAsync) {
        copy_async<sizeof(S)>(tile + k, plane + o);
      } else {
        store(tile + k, load(plane + o));
      }
    });
  } else if (paired) {
    t.template for_values<2>(0, t.values, [&](int k, int64_t o, bool inside) {
      if (!inside) return;
      if constexpr (kAsync) {
        copy_async<4>(tile + k, plane + o);
      } else {
        store(reinterpret_cast<uint32_t*>(tile + k), load(reinterpret_cast<const uint32_t*>(plane + o)));
      }
    });
  } else {
    t.template for_values<1>(0, t.values, [&](int k, int64_t o, bool inside) {
      if (inside) store(tile + k, load(plane + o));
    });
  }
}

// Writes a tile back where it belongs.
template <typename S, typename V>
SPN_DEVICE void copy_out(const V* tile, V* plane, const Tile<S>& t) {
  t.template for_values<1>(0, t.values, [&](int k, int64_t o, bool inside) {
    if (inside) store(plane + o, load(tile + k));
  });
}

}  // namespace cuda
}  // namespace spn
