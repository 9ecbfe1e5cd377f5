// The order in which a block of the backward pass processes its tiles, and the stages that hold their arrays.
#pragma once

#include "backward_sweep.h"

namespace spn {
namespace cuda {

// The items of a sweep: the tiles of its run or chunk from the last to the first, the segments of each tile, and the
// channels of each segment.
struct BackwardWalk {
  Segments segments;
  int positions, channels, source_run;  // consecutive channels that share a source
  int t0, number = 0, channel = 0;

  template <typename S>
  SPN_DEVICE BackwardWalk(const Problem& p, const BackwardSweep<S>& in, const Plan& plan)
      : segments(in.sweep.positions, plan.threads),
        positions(static_cast<int>(in.sweep.positions)),
        channels(plan.channels),
        source_run(1),
        t0((in.end_line - 1) / kLines * kLines) {
    if (p.source_groups) {
      const int sharing = static_cast<int>(p.channels / p.source_groups);
      source_run = sharing < channels ? sharing : channels;
    }
  }
  SPN_DEVICE Segment segment() const { return Segment(segments, number, positions); }
  SPN_DEVICE bool done(int first_line) const { return t0 < first_line; }
  SPN_DEVICE void next() {
    if (++channel < channels) return;
    channel = 0;
    if (++number < segments.count) return;
    number = 0, t0 -= kLines;
  }
  SPN_DEVICE bool first_of_gates() const { return channel == 0; }
  SPN_DEVICE bool last_of_gates() const { return channel + 1 == channels; }
  SPN_DEVICE bool first_of_source() const { return channel % source_run == 0; }
  SPN_DEVICE bool last_of_source() const { return (channel + 1) % source_run == 0; }
};

// The stages (0 or 1) that hold the arrays of an item. Arrays that channels share stay while the channels change. One
// bit each, because threads have no registers to spare.
struct Stages {
  unsigned bits = 7;

  SPN_DEVICE int gates() const { return bits & 1; }
  SPN_DEVICE int source() const { return bits >> 1 & 1; }
  SPN_DEVICE int channel() const { return bits >> 2; }
  SPN_DEVICE void next(int stages, bool new_gates, bool new_source) {
    bits = stages == 1 ? 0 : bits ^ ((new_gates ? 1 : 0) | (new_source ? 2 : 0) | 4);
  }
};

}  // namespace cuda
}  // namespace spn
