// A warp's tile: 32 positions x kLines lines of one plane, staged in shared memory.
//
//   vertical sweep: a line is a row                  horizontal sweep: a line is a column
//
//   line 0     | lane 0 | lane 1 | ... | lane 31 |   lane 0     | line 0 | line 1 | ... | line L-1 |
//   line 1     | lane 0 | lane 1 | ... | lane 31 |   lane 1     | line 0 | line 1 | ... | line L-1 |
//   ...                                              ...
//   line L-1   | lane 0 | lane 1 | ... | lane 31 |   lane 31    | line 0 | line 1 | ... | line L-1 |
//
// The rows of a tile are pieces of the rows of the plane, so the warp copies whole memory sectors in either direction
// (LanePieces). Each lane then reads the values of its own position (LaneView), which performs the transposition.
#pragma once

#include "segments.h"
#include "simt.h"

namespace spn {
namespace cuda {

constexpr int kWarp = 32;

// The largest number of values that one instruction moves, 8 or 16 bytes: neighbouring values of a row in a copy, or
// the values of a lane's position on this many lines.
template <typename S>
constexpr int kTogether = sizeof(S) == 8 ? 2 : 4;

// Avoids bank conflicts. The lanes of a horizontal sweep read the same column of 32 rows, and these rows begin in only
// a few banks of shared memory. Row r therefore permutes its columns, kTogether at a time, by an exclusive or with this
// value.
template <typename V, int kTogether>
SPN_DEVICE constexpr int spread(int row) {
  constexpr int kPiecesOfRow = kLines / kTogether;
  constexpr int kPiecesOfBanks = 128 / (kTogether * static_cast<int>(sizeof(V)));  // pieces that fill all banks once
  constexpr int kRowsOfBanks = kPiecesOfBanks > kPiecesOfRow ? kPiecesOfBanks / kPiecesOfRow : 1;
  return row / kRowsOfBanks % kPiecesOfRow * kTogether;
}

// Reads and writes the values at a lane's position in a tile, kTogether lines at a time. V is the dtype of the tile.
template <typename S>
struct LaneView {
  static constexpr int kCount = kTogether<S>;

  int lane;
  bool horizontal, mirrored;  // mirrored: the last line is the first column of the row

  SPN_DEVICE explicit LaneView(const Sweep& s)
      : lane(static_cast<int>(threadIdx.x) % kWarp),
        horizontal(s.position_stride != 1),
        mirrored(horizontal && s.line_stride < 0) {}

  // Set values[i] to the value on line `line` + i.
  template <typename V, typename T>
  SPN_DEVICE void read(const V* tile, int line, T (&values)[kCount]) const {
    if (horizontal) {
      unpack(load(reinterpret_cast<const Pack<V, kCount>*>(tile + place<V>(line))), values);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] = static_cast<T>(load(tile + (line + i) * kWarp + lane));
    }
  }

  // Set taps[i] for line `line` + i, from three tiles that lie `apart` values apart.
  template <typename V, typename T>
  SPN_DEVICE void read_taps(const V* tiles, int apart, int line, Taps<T> (&taps)[kCount]) const {
    T values[3][kCount];
    for (int tap = 0; tap < 3; ++tap) read(tiles + tap * apart, line, values[tap]);
#pragma unroll
    for (int i = 0; i < kCount; ++i) taps[i] = {values[0][i], values[1][i], values[2][i]};
  }

  template <typename V, typename T>
  SPN_DEVICE void write(V* tile, int line, const T (&values)[kCount]) const {
    if (horizontal) {
      store(reinterpret_cast<Pack<V, kCount>*>(tile + place<V>(line)), pack<V>(values));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) store(tile + (line + i) * kWarp + lane, static_cast<V>(values[i]));
    }
  }

  // For a horizontal sweep: kTogether lines as they lie in a row.
  template <typename V, typename T>
  SPN_DEVICE void unpack(const Pack<V, kCount>& pack, T (&values)[kCount]) const {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const T value = static_cast<T>(pack.v[i]), mirror = static_cast<T>(pack.v[kCount - 1 - i]);
      values[i] = mirrored ? mirror : value;
    }
  }
  template <typename V, typename T>
  SPN_DEVICE Pack<V, kCount> pack(const T (&values)[kCount]) const {
    Pack<V, kCount> result;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const T value = mirrored ? values[kCount - 1 - i] : values[i];
      result.v[i] = static_cast<V>(value);
    }
    return result;
  }

 private:
  template <typename V>
  SPN_DEVICE int place(int line) const {
    const int column = mirrored ? kLines - kCount - line : line;
    return lane * kLines + (column ^ spread<V, kCount>(lane));
  }
};

template <int kPiece, typename V>
SPN_DEVICE Pack<V, kPiece> load_piece(const V* address) {
  return load(reinterpret_cast<const Pack<V, kPiece>*>(address));
}

template <int kPiece, typename V>
SPN_DEVICE void store_piece(V* address, const Pack<V, kPiece>& piece) {
  store(reinterpret_cast<Pack<V, kPiece>*>(address), piece);
}

// The values that a lane copies between a tile and its plane. In each of kTurns turns, it copies one piece: kPiece
// neighbouring values of a row. Each piece lies completely inside or outside the map, because the plan chooses a kPiece
// that divides the row length. A piece "counts" if the plane has values for it in the requested positions.
template <typename S, int kPiece>
struct LanePieces {
  static constexpr int kTurns = kLines / kPiece;

  bool horizontal;
  int row, column;         // of the first turn
  int first, end;          // rows whose pieces count; empty if the pieces of the lane's column do not count
  int64_t offset, stride;  // of the first turn's piece in the plane; step between turns

  // The tile starts at line t0 and position j0. A piece counts if it lies in the map and in positions from .. to - 1.
  SPN_DEVICE LanePieces(const Sweep& s, int t0, int j0, int from, int to) : horizontal(s.position_stride != 1) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int lines = static_cast<int>(s.lines);
    bool counts;
    if (horizontal) {
      const bool mirrored = s.line_stride < 0;
      row = lane / (kLines / kPiece);
      column = lane % (kLines / kPiece) * kPiece;
      const int line = mirrored ? t0 + kLines - 1 - column : t0 + column;
      counts = line >= 0 && line < lines;
      first = from - j0;
      end = to - j0;
      offset = s.offset(line, j0 + row);
      stride = kRowsATurn * s.position_stride;
    } else {
      row = lane / (kWarp / kPiece);
      column = lane % (kWarp / kPiece) * kPiece;
      counts = j0 + column >= from && j0 + column < to;
      first = -t0;
      end = lines - t0;
      offset = s.offset(t0 + row, j0 + column);
      stride = kPiece * s.line_stride;
    }
    if (!counts) end = first;
  }

  // Call f(turn, whether its piece counts).
  template <typename F>
  SPN_DEVICE void for_turns(F f) const {
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      next_turn();
      f(turn, static_cast<unsigned>(row - first + turn * (horizontal ? kRowsATurn : kPiece)) <
                  static_cast<unsigned>(end - first));
    }
  }
  SPN_DEVICE int64_t offset_of(int turn) const { return offset + turn * stride; }

  // Offset of the turn's piece in a tile of values V.
  template <typename V>
  SPN_DEVICE int place(int turn) const {
    const int begin = row * (horizontal ? kLines : kWarp) + turn * kPiece * kWarp;
    // The number of rows per turn is a power of two, so the spread of row + offset is the exclusive or of both spreads.
    return begin + (horizontal ? column ^ spread_of<V>(row) ^ spread_of<V>(turn * kRowsATurn) : column);
  }

  // Copy the lane's pieces of planes to tiles, with zeros for pieces that do not count. visit(f) calls f(tile, plane)
  // for each plane.
  template <typename Visit>
  SPN_DEVICE void bring(Visit visit) const {
    copy<true>([&](int turn, auto* tile) { return tile + place<std::remove_pointer_t<decltype(tile)>>(turn); }, visit);
  }
  // Copy the pieces that count to resident planes, at the offsets of `kept`.
  template <typename Visit>
  SPN_DEVICE void bring(const LanePieces& kept, Visit visit) const {
    copy<false>([&](int turn, auto* on_chip) { return on_chip + kept.offset_of(turn); }, visit);
  }

 private:
  static constexpr int kRowsATurn = kWarp * kPiece / kLines;  // in a horizontal sweep; a vertical sweep has kPiece rows

  template <typename V>
  SPN_DEVICE static constexpr int spread_of(int r) {
    return spread<V, kTogether<S>>(r);
  }

  // Whether the device can copy a piece asynchronously.
  template <typename V>
  static constexpr bool kAsynchronous = kPiece * sizeof(V) >= 4;

  template <bool kZeros, typename Place, typename Visit>
  SPN_DEVICE void copy(Place place, Visit visit) const {
    for_turns([&](int turn, bool counts) {
      visit([&](auto* to, const auto* plane) {
        using V = std::remove_pointer_t<decltype(to)>;
        if constexpr (kAsynchronous<V>) {
          if (kZeros || counts) copy_async<kPiece * sizeof(V)>(place(turn, to), plane + offset_of(turn), counts);
        }
      });
    });
    visit([&](auto* to, const auto* plane) {
      using V = std::remove_pointer_t<decltype(to)>;
      if constexpr (!kAsynchronous<V>) {
        Pack<V, kPiece> pieces[kTurns];  // start all loads before the first store
        const V* from = plane + offset;
        for_turns([&](int turn, bool counts) {
          pieces[turn] = counts ? load_piece<kPiece>(from) : Pack<V, kPiece>{};
          from += stride;
        });
        for_turns([&](int turn, bool counts) {
          if (kZeros || counts) store_piece<kPiece>(place(turn, to), pieces[turn]);
        });
      }
    });
  }
};

// Write a piece of results to its plane.
template <int kPiece, typename V>
SPN_DEVICE void send_piece(V* address, const Pack<V, kPiece>& piece) {
  store_whole(reinterpret_cast<Pack<V, kPiece>*>(address), piece);
}

// Wait for the oldest of `stages` tiles that are being loaded.
SPN_DEVICE void wait_for_tile(int stages) {
  if (stages == 2) {
    copy_wait<1>();
  } else {
    copy_wait<0>();
  }
}

}  // namespace cuda
}  // namespace spn
