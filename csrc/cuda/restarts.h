// Restarts within a sweep (restart_every): the lines of a tile that have no taps.
#pragma once

#include <type_traits>

#include "segments.h"
#include "simt.h"

namespace spn {
namespace cuda {

// Return a bit mask: bit i is set if line t0 + i has no taps.
SPN_DEVICE unsigned starts_of_tile(const Problem& p, int t0) {
  unsigned starts = t0 == 0 ? 1 : 0;
  if (p.restart_every == 0) return starts;
  const unsigned every = static_cast<unsigned>(p.restart_every < (1 << 30) ? p.restart_every : 1 << 30);
  for (unsigned i = (every - static_cast<unsigned>(t0) % every) % every; i < kLines; i += every) starts |= 1u << i;
  return starts;
}

// Call f(whether any of the lines has no taps). All threads take the same branch, so steps of other lines do not get
// slower.
template <typename F>
SPN_DEVICE void with_starts(unsigned starts, F f) {
#ifndef SPN_WITHOUT_STARTS  // benchmarks/cuda/instructions.cu counts lines with taps only
  if (starts) return f(std::true_type{});
#endif
  f(std::false_type{});
}

}  // namespace cuda
}  // namespace spn
