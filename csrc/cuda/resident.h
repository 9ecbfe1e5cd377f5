// Resident planes, which stay in shared memory between sweeps.
//
// Their rows begin an odd number of pieces apart. The lanes of a horizontal sweep read the same column of 32 rows; the
// odd pitch places these values in different banks.
#pragma once

#include "plan.h"
#include "tile.h"

namespace spn {
namespace cuda {

inline int64_t resident_pitch(const Problem& p, int piece) {
  return (p.width / piece | 1) * piece;
}

// Values of one plane, rounded up so that the next plane begins at a multiple of 16 bytes for any dtype.
SPN_HD int64_t resident_values(const Problem& p, const Plan& plan) {
  return (p.height * plan.resident_pitch + 15) / 16 * 16;
}

SPN_HD Sweep resident_sweep(const Problem& p, const Plan& plan, int d) {
  return make_sweep(static_cast<Direction>(d), p.height, p.width, plan.resident_pitch);
}

// Accesses a lane's position in planes of values V, kTogether lines at a time, with zeros outside the map. In a
// horizontal sweep these values are one piece of a row, if rows consist of whole pieces.
template <typename S, int kPiece>
struct ResidentView {
  static constexpr int kCount = kTogether<S>;

  const LaneView<S>& lane;
  int origin, stride;  // offset of the tile's first line; step between lines
  int lines;           // of the tile inside the map; 0 for a position outside

  SPN_DEVICE ResidentView(const LaneView<S>& lane, const Sweep& s, int t0, int j, bool inside)
      : lane(lane),
        origin(static_cast<int>(s.offset(t0, j))),
        stride(static_cast<int>(s.line_stride)),
        lines(inside ? static_cast<int>(s.lines) - t0 : 0) {}

  // Set values[i] to the value on line `line` + i.
  template <typename V, typename T>
  SPN_DEVICE void read(const V* plane, int line, T (&values)[kCount]) const {
    if (kPiece == kCount && lane.horizontal) {
      Pack<V, kCount> pack{};
      if (has(line)) pack = load_piece<kCount>(plane + piece(line));
      lane.unpack(pack, values);
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        values[i] = T(0);
        if (has(line + i)) values[i] = static_cast<T>(load(plane + origin + (line + i) * stride));
      }
    }
  }

  template <typename V>
  SPN_DEVICE void write(V* plane, int line, const V (&values)[kCount]) const {
    if (kPiece == kCount && lane.horizontal) {
      if (has(line)) store_piece<kCount>(plane + piece(line), lane.template pack<V>(values));
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if (has(line + i)) store(plane + origin + (line + i) * stride, values[i]);
      }
    }
  }

 private:
  SPN_DEVICE bool has(int line) const { return line < lines; }
  // Offset of the piece that holds lines `line` .. `line` + kCount - 1.
  SPN_DEVICE int piece(int line) const { return origin + line * stride - (lane.mirrored ? kCount - 1 : 0); }
};

}  // namespace cuda
}  // namespace spn
