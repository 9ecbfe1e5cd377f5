// How a block walks lines that have more positions than it has threads: in overlapping segments.
//
//   positions             |<---- own ---->|<---- own ---->|<---- own ---->|
//   line t0 - 1       [============ carry: the whole line, exact ============]
//                                  \                        /
//                                   \      a segment's     /     Each line of a tile loses a position at either end to
//                                    \      threads       /      neighbours that the segment does not know. The halo is
//   line t0 + kLines - 1              |<---- own ---->|          as wide as a tile has lines: own positions are exact.
//                                |halo|               |halo|
//
// So lines of any length take the same kernel, and what a block needs of shared memory does not grow with them.
#pragma once

#include <cstdint>

#include "../problem.h"

namespace spn {
namespace cuda {

// Lines of a tile: those between two checkpoints. A row of a horizontal sweep's tile is 32 bytes or more.
constexpr int kLines = static_cast<int>(kCheckpointLines);

struct Segments {
  int count, own, halo;

  SPN_HD Segments(int64_t positions, int threads)
      : count(1), own(positions <= threads ? threads : threads - 2 * kLines), halo(positions <= threads ? 0 : kLines) {
    if (halo) count = static_cast<int>((positions + own - 1) / own);
  }
};

// The positions of segment `number`: first .. end - 1 are computed, own .. own_end - 1 are its results.
struct Segment {
  int start;  // of the first thread; may lie before the map
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
