// A warp's tile: 32 positions x L lines (L a power of two, 4 to 16) of one plane, staged in scratch memory.
//
//   vertical sweep, a line is a row                  horizontal sweep, a line is a column
//
//   line 0     | lane 0 | lane 1 | ... | lane 31 |   lane 0     | line 0 | line 1 | ... | line L-1 |
//   line 1     | lane 0 | lane 1 | ... | lane 31 |   lane 1     | line 0 | line 1 | ... | line L-1 |
//   ...                                              ...
//   line L-1   | lane 0 | lane 1 | ... | lane 31 |   lane 31    | line 0 | line 1 | ... | line L-1 |
//
// A tile's rows are pieces of the plane's rows, so the warp copies whole sectors of memory whichever way the sweep
// runs, and each lane then finds its own position's values: that is the transposition. The lanes of one line would meet
// in few banks where a row is shorter than 32 words; an exclusive or of the column with bits of the row's number
// spreads them over all banks without padding.
#pragma once

#include "../sweep.h"
#include "simt.h"

namespace spn {
namespace cuda {

constexpr int kWarp = 32;

// The exclusive or: `bits` of the row's number beyond `shift`, moved left past the bit that tells a pair's halves.
template <typename S>
struct Spread {
  // Values of 2 bytes are copied in pairs, as words.
  static constexpr int kPairLog2 = sizeof(S) < 4 ? 1 : 0;
  static constexpr int kRowOfBanksLog2 = sizeof(S) == 8 ? 4 : 5 + kPairLog2;  // values in all banks once

  int shift, bits;

  SPN_DEVICE explicit Spread(int lines_log2)
      : shift(lines_log2 > kRowOfBanksLog2 ? 0 : kRowOfBanksLog2 - lines_log2),
        bits((1 << lines_log2 >> kPairLog2) - 1) {}
  SPN_DEVICE int of(int row) const { return ((row >> shift) & bits) << kPairLog2; }
};

// Where a lane has its position's value of line i.
template <typename S>
struct LaneView {
  int base, spread, shift, first, step;

  SPN_DEVICE LaneView(bool horizontal, bool mirrored, int count, int lines_log2) {
    const int lane = threadIdx.x % kWarp;
    base = horizontal ? lane << lines_log2 : lane;
    spread = horizontal ? Spread<S>(lines_log2).of(lane) : 0;
    shift = horizontal ? 0 : 5;
    first = mirrored ? count - 1 : 0;
    step = mirrored ? -1 : 1;
  }
  SPN_DEVICE int operator()(int i) const { return base + (((first + step * i) ^ spread) << shift); }
};

template <typename S>
SPN_DEVICE LaneView<S> lane_view(const Sweep& s, int count, int lines_log2) {
  const bool horizontal = s.position_stride != 1;
  return LaneView<S>(horizontal, horizontal && s.line_stride < 0, count, lines_log2);
}

// What a lane copies of a tile: in each turn the value, or `kTogether` neighbours, at one column of the tile's rows.
template <typename S, int kTogether = 1>
struct LaneCopy {
  int row, column, rows_a_turn, row_stride, log2_columns;
  int rows, turns;  // rows inside the map, none for a lane whose column is outside; turns of a whole tile
  Spread<S> spread;
  int64_t offset;

  SPN_DEVICE LaneCopy(const Sweep& s, int t0, int count, int j0, int lines_log2) : spread(lines_log2) {
    const int first = static_cast<int>(threadIdx.x) % kWarp * kTogether;
    const bool horizontal = s.position_stride != 1;
    const int inside = s.positions - j0 < kWarp ? static_cast<int>(s.positions) - j0 : kWarp;
    offset = s.offset(t0, j0);
    if (horizontal) {
      if (s.line_stride < 0) offset -= count - 1;
    } else {
      spread.bits = 0;
    }
    row_stride = static_cast<int>(horizontal ? s.position_stride : s.line_stride);
    log2_columns = horizontal ? lines_log2 : 5;
    row = first >> log2_columns;
    column = first & ((1 << log2_columns) - 1);
    rows_a_turn = kWarp * kTogether >> log2_columns;
    rows = column < (horizontal ? count : inside) ? (horizontal ? inside : count) : 0;
    turns = (1 << lines_log2) / kTogether;
    offset += column;
  }

  // f(index in the tile, offset in the plane) where the turn's value is inside the map.
  template <typename F>
  SPN_DEVICE void turn(int number, F f) const {
    next_turn();
    const int r = row + number * rows_a_turn;
    if (r < rows) f((r << log2_columns) + (column ^ spread.of(r)), offset + static_cast<int64_t>(r) * row_stride);
  }
  template <typename F>
  SPN_DEVICE void for_turns(F f) const {
#pragma unroll 2
    for (int number = 0; number < turns; ++number) turn(number, f);
  }
};

// Stages a tile of `count` lines from t0, 32 positions from j0. `paired`: 2-byte values may be moved in pairs.
// Asynchronous where kAsync: scratch is shared memory and the plane global.
template <bool kAsync, typename S>
SPN_DEVICE void copy_in(S* tile, const S* plane, const Sweep& s, int t0, int count, int j0, int lines_log2,
                        bool paired) {
  if constexpr (sizeof(S) >= 4) {
    LaneCopy<S>(s, t0, count, j0, lines_log2).for_turns([&](int k, int64_t o) {
      if constexpr (kAsync) {
        copy_async<sizeof(S)>(tile + k, plane + o);
      } else {
        store(tile + k, load(plane + o));
      }
    });
  } else if (paired) {
    LaneCopy<S, 2>(s, t0, count, j0, lines_log2).for_turns([&](int k, int64_t o) {
      if constexpr (kAsync) {
        copy_async<4>(tile + k, plane + o);
      } else {
        store(reinterpret_cast<uint32_t*>(tile + k), load(reinterpret_cast<const uint32_t*>(plane + o)));
      }
    });
  } else {
    LaneCopy<S>(s, t0, count, j0, lines_log2).for_turns([&](int k, int64_t o) { store(tile + k, load(plane + o)); });
  }
}

}  // namespace cuda
}  // namespace spn
