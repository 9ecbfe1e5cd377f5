// Partial sums: gradients of gates and source that more channels share than a block processes. Each of several blocks
// computes one part of the sum.
//
// Each block leaves its part in the workspace, and a kernel adds up the parts in order (merge.h). If all parts would
// take too much memory, the pass is divided into several launches. Each launch processes a chunk of each sweep's tiles,
// starting with the last chunk:
//
//   tiles of a sweep   | chunk 0 | chunk 1 | chunk 2 |     launch 1: chunk 2, then its parts are added up
//                                <------- walk -------     launch 2: chunk 1, in the same memory, ...
//
// Each block passes one line from chunk to chunk in global memory.
#pragma once

#include "plan.h"

namespace spn {
namespace cuda {

SPN_HD int64_t tile_count(int64_t lines) {
  return (lines + kLines - 1) / kLines;
}

// The lines of the chunk of a launch: first .. end - 1. The last chunk includes the last tile of the sweep, which may
// be short.
struct Chunk {
  int64_t first, end;

  SPN_HD Chunk(int64_t lines, const Plan& plan)
      : first(tile_count(lines) * plan.chunk / plan.chunks * kLines),
        end(tile_count(lines) * (plan.chunk + 1) / plan.chunks * kLines) {
    if (end > lines) end = lines;
  }
};

// Lines of the largest chunk: whole tiles, or all lines if there is one chunk.
SPN_HD int64_t chunk_lines(int64_t lines, int chunks) {
  return chunks == 1 ? lines : (tile_count(lines) + chunks - 1) / chunks * kLines;
}

// Values of a part: a chunk of one plane, for sweeps in any direction.
SPN_HD int64_t part_values(const Problem& p, int chunks) {
  const int64_t columns = p.height * chunk_lines(p.width, chunks), rows = chunk_lines(p.height, chunks) * p.width;
  return columns > rows ? columns : rows;
}

// The location of the pixels of a part in the part and in their plane.
struct Part {
  int64_t row, column;    // of its first pixel, in the plane
  int64_t rows, columns;  // size of the part
  int64_t pitch;          // distance between rows

  SPN_HD Part(const Problem& p, const Plan& plan, int d) {
    const Sweep s = p.sweep(d);
    const Chunk chunk(s.lines, plan);
    const int64_t begin = s.line_stride < 0 ? s.lines - chunk.end : chunk.first, count = chunk.end - chunk.first;
    const bool horizontal = p.first_direction + d < 2;
    row = horizontal ? 0 : begin;
    column = horizontal ? begin : 0;
    rows = horizontal ? p.height : count;
    columns = horizontal ? count : p.width;
    pitch = horizontal ? chunk_lines(p.width, plan.chunks) : p.width;
  }
};

// Sweep d over a part instead of a whole plane.
SPN_HD Sweep part_sweep(const Problem& p, const Plan& plan, int d) {
  const Part part(p, plan, d);
  Sweep s = make_sweep(static_cast<Direction>(p.first_direction + d), p.height, p.width, part.pitch);
  s.origin -= part.row * part.pitch + part.column;
  return s;
}

}  // namespace cuda
}  // namespace spn
