// Where a sweep starts anew on its way (restart_every): the lines of a tile that have no taps, and the runs of lines
// that blocks may take apart.
#pragma once

#include "plan.h"
#include "simt.h"

namespace spn {
namespace cuda {

// Bit i: line t0 + i has no taps.
SPN_DEVICE unsigned starts_of_tile(const Problem& p, int t0) {
  unsigned starts = t0 == 0 ? 1 : 0;
  if (p.restart_every == 0) return starts;
  const unsigned every = static_cast<unsigned>(p.restart_every < (1 << 30) ? p.restart_every : 1 << 30);
  for (unsigned i = (every - static_cast<unsigned>(t0) % every) % every; i < kLines; i += every) starts |= 1u << i;
  return starts;
}

// f(whether any of the lines has no taps): all threads take the branch alike, so that steps elsewhere cost no more.
template <typename F>
SPN_DEVICE void with_starts(unsigned starts, F f) {
#ifndef SPN_WITHOUT_STARTS  // benchmarks/cuda/instructions.cu counts the other lines
  if (starts) return f(std::true_type{});
#endif
  f(std::false_type{});
}

// Lines first .. end - 1 of sweep d, of which a task of `runs` for each sweep takes the `number`th run: none where the
// sweep has fewer pieces. Each begins where the sweep starts anew and a tile begins.
struct Run {
  int first, end;

  SPN_HD Run(const Problem& p, int d, int runs, int number) {
    const int64_t lines = p.sweep(d).lines, piece = p.lines_of_run(d), pieces = (lines + piece - 1) / piece;
    const int64_t last = pieces * (number + 1) / runs * piece;
    first = static_cast<int>(pieces * number / runs * piece);
    end = static_cast<int>(last < lines ? last : lines);
  }
};

}  // namespace cuda
}  // namespace spn
