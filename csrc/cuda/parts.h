// Sums over channels that several blocks share, each with one part: gradients of gates and sources that more channels
// share than a block takes.
//
// Each block leaves its part in the workspace, and a kernel adds the parts up in their order (merge.h). Where all of
// them would take too much room, the pass is cut into launches that take a chunk of each sweep's tiles, the last first:
//
//   tiles of a sweep   | chunk 0 | chunk 1 | chunk 2 |     launch 1: chunk 2, its parts are added up
//                                <------- walk -------     launch 2: chunk 1, in the same room, ...
//
// What goes on from chunk to chunk is a line of each block, in global memory.
#pragma once

#include "plan.h"

namespace spn {
namespace cuda {

SPN_HD int64_t tile_count(int64_t lines) {
  return (lines + kLines - 1) / kLines;
}

// The lines of a launch's chunk: first .. end - 1. The last chunk has the sweep's last tile, which may be short.
struct Chunk {
  int64_t first, end;

  SPN_HD Chunk(int64_t lines, const Plan& plan)
      : first(tile_count(lines) * plan.chunk / plan.chunks * kLines),
        end(tile_count(lines) * (plan.chunk + 1) / plan.chunks * kLines) {
    if (end > lines) end = lines;
  }
};

// Of the largest chunk: whole tiles, or all lines.
SPN_HD int64_t chunk_lines(int64_t lines, int chunks) {
  return chunks == 1 ? lines : (tile_count(lines) + chunks - 1) / chunks * kLines;
}

// Values of a part: a chunk of one plane, whichever way the sweep runs.
SPN_HD int64_t part_values(const Problem& p, int chunks) {
  const int64_t columns = p.height * chunk_lines(p.width, chunks), rows = chunk_lines(p.height, chunks) * p.width;
  return columns > rows ? columns : rows;
}

// Where the pixels of a part lie in it, and in their plane.
struct Part {
  int64_t row, column;    // of its first pixel in the plane
  int64_t rows, columns;  // that it has
  int64_t pitch;          // from row to row

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

// Sweep d over a part of it instead of a plane.
SPN_HD Sweep part_sweep(const Problem& p, const Plan& plan, int d) {
  const Part part(p, plan, d);
  Sweep s = make_sweep(static_cast<Direction>(p.first_direction + d), p.height, p.width, part.pitch);
  s.origin -= part.row * part.pitch + part.column;
  return s;
}

}  // namespace cuda
}  // namespace spn
