// The input of a propagation: shapes, options and plain pointers. The kernels see these structs and no torch types.
#pragma once

#include <cstdint>

#include "recurrence.h"
#include "sweep.h"

namespace spn {

enum class DType : int { float32, float64, float16, bfloat16 };
enum class Merge : int { none, max, mean, sum };

// For the backward pass, the forward pass saves every 16th line of a sweep's hidden state (t = 15, 31, ...), except the
// last line of the sweep: the checkpoints. The backward pass recomputes the lines between two checkpoints from the
// gates, which it reads anyway.
constexpr int64_t kCheckpointLines = 16;

SPN_HD int64_t block_count(int64_t lines) {
  return (lines + kCheckpointLines - 1) / kCheckpointLines;
}

// A run: lines first .. end - 1 of a sweep.
struct Run {
  int64_t first, end;
};

struct Problem {
  DType dtype;
  Normalize normalize;
  Merge merge;
  int first_direction;  // the sweeps are first_direction .. first_direction + directions - 1
  int directions;       // 1 or 4
  int64_t batch, channels, height, width;
  int64_t gate_groups;        // G: channel c uses group c / (C / G)
  int64_t source_groups;      // G_s, 0 in SPN form
  int64_t restart_every = 0;  // the sweep restarts after this many lines; 0: never

  SPN_HD int64_t plane() const { return height * width; }
  SPN_HD int64_t gate_size() const { return channels / gate_groups; }  // channels that share gates
  SPN_HD int64_t source_size() const { return source_groups ? channels / source_groups : 1; }
  SPN_HD Sweep sweep(int d) const { return make_sweep(static_cast<Direction>(first_direction + d), height, width); }

  // Return whether line t has no taps: the first line of the sweep, or a restart.
  SPN_HD bool starts_at(int64_t t) const { return t == 0 || (restart_every && t % restart_every == 0); }

  // Return the number of lines in the smallest piece of sweep d that can be computed independently. Each piece begins
  // at a line that is both a restart and the first line after a checkpoint.
  SPN_HD int64_t lines_of_piece(int d) const {
    const int64_t lines = sweep(d).lines;
    if (restart_every == 0 || restart_every >= lines) return lines;
    int64_t common = restart_every, rest = kCheckpointLines;  // greatest common divisor (Euclid)
    while (rest) {
      const int64_t next = common % rest;
      common = rest, rest = next;
    }
    const int64_t piece = restart_every / common * kCheckpointLines;
    return piece < lines ? piece : lines;
  }
  SPN_HD int64_t piece_count(int d) const {
    const int64_t piece = lines_of_piece(d);
    return (sweep(d).lines + piece - 1) / piece;
  }
  SPN_HD int64_t most_pieces() const {
    int64_t most = 1;
    for (int d = 0; d < directions; ++d) {
      const int64_t pieces = piece_count(d);
      if (pieces > most) most = pieces;
    }
    return most;
  }
  // Return run `number` of the `count` runs of whole pieces that sweep d is divided into. Some runs are empty if the
  // sweep has fewer than `count` pieces.
  SPN_HD Run run(int d, int64_t count, int64_t number) const {
    const int64_t lines = sweep(d).lines, piece = lines_of_piece(d), pieces = piece_count(d);
    const int64_t end = pieces * (number + 1) / count * piece;
    return {pieces * number / count * piece, end < lines ? end : lines};
  }

  // Values in the checkpoints of sweep d, for one channel of one sample.
  SPN_HD int64_t checkpoint_values(int d) const {
    const Sweep s = sweep(d);
    return (block_count(s.lines) - 1) * s.positions;
  }
  SPN_HD int64_t checkpoint_offset(int d) const {
    int64_t offset = 0;
    for (int e = 0; e < d; ++e) offset += checkpoint_values(e);
    return offset;
  }

  // Plane indices into the contiguous arrays gates (N, D, 3, G, H, W) and source (N, D, G_s, H, W).
  SPN_HD int64_t gate_plane(int64_t n, int d, int tap, int64_t channel) const {
    return ((n * directions + d) * 3 + tap) * gate_groups + channel / (channels / gate_groups);
  }
  SPN_HD int64_t source_plane(int64_t n, int d, int64_t channel) const {
    return (n * directions + d) * source_groups + channel / (channels / source_groups);
  }
};

struct ForwardArgs : Problem {
  const void* x;       // (N, C, H, W)
  const void* gates;   // (N, D, 3, G, H, W), raw
  const void* source;  // (N, D, G_s, H, W) or null
  void* out;           // (N, C, H, W), or (N, D, C, H, W) without a merge
  uint8_t* winner;     // (N, C, H, W): the direction that gave the maximum; null if not saved
  void* checkpoints;   // (N, C, sum of checkpoint_values) in the dtype of the hidden state; null if not saved
};

struct BackwardArgs : Problem {
  const void* grad;  // gradient of out, in its shape
  const void* x;     // read if reads_x()
  const void* gates;
  const void* source;
  const uint8_t* winner;
  const void* checkpoints;  // read if reads_hidden()
  // Each of these is null if that gradient is not requested.
  void* grad_x;
  void* grad_gates;
  void* grad_source;

  // dp_k = a (h_k - x) and dlambda = a x need x and the hidden state; dx depends on a and p alone.
  SPN_HD bool reads_hidden() const { return grad_gates != nullptr; }
  SPN_HD bool reads_x() const { return grad_gates || grad_source; }
};

}  // namespace spn
