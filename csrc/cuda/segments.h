// Overlapping segments: a block processes lines that have more positions than it has threads.
//
//   positions             |<---- own ---->|<---- own ---->|<---- own ---->|
//   line t0 - 1       [============ carry: the whole line, exact ============]
//                                  \                        /
//                                   \      a segment's     /     With each line of a tile, one position at either end
//                                    \      threads       /      becomes invalid: its neighbour is outside the segment.
//   line t0 + kLines - 1              |<---- own ---->|          The halo is as wide as a tile has lines, so own
//                                |halo|               |halo|     positions are exact.
//
// The same kernel can thus process lines of any length, and the shared memory of a block does not depend on the length.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace spn {
namespace cuda {

// Lines of a tile: the lines between two checkpoints. A row of a horizontal sweep's tile is at least 32 bytes.
constexpr int kLines = static_cast<int>(kCheckpointLines);

struct Segments {
  int count, own, halo;

  SPN_HD Segments(int64_t positions, int threads)
      : count(1), own(positions <= threads ? threads : threads - 2 * kLines), halo(positions <= threads ? 0 : kLines) {
    if (halo) count = static_cast<int>((positions + own - 1) / own);
  }
};

// The positions of segment `number`: it computes first .. end - 1, and own .. own_end - 1 of these are its results.
struct Segment {
  int start;  // position of the first thread; may lie before the map
  int first, end, own, own_end;

  SPN_HD Segment(const Segments& segments, int number, int positions)
      : start(number * segments.own - segments.halo), first(start > 0 ? start : 0), own(number * segments.own) {
    const int last = own + segments.own;
    own_end = last < positions ? last : positions;
    end = last + segments.halo < positions ? last + segments.halo : positions;
  }
};

}  // namespace cuda
}  // namespace spn
