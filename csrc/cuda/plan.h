// Divides a pass into blocks: the code that the plans of both passes share. Plain host code, so the emulator runs it
// too.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <tuple>
#include <type_traits>

#include "../problem.h"
#include "segments.h"

namespace spn {
namespace cuda {

// The dtype of the hidden state for tensors of dtype S.
template <typename S>
using StateOf = std::conditional_t<sizeof(S) == 8, double, float>;

// Threads of the largest block. Each thread needs about 160 registers.
template <typename S>
constexpr int kThreads = sizeof(S) == 8 ? 256 : 384;

constexpr int64_t kHeaderBytes = 640;  // of shared memory, for the pointers of two sweeps
constexpr int64_t kSharedUnit = 128;   // bytes; granularity of shared memory allocation
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

// The limits of the device.
struct Limits {
  int64_t shared_bytes;  // per block, without the header
  int multiprocessors;
  int threads;                             // of a block
  int64_t shared_of_multiprocessor;        // for all blocks on a multiprocessor
  int64_t shared_reserved;                 // used by the system, per block
  double bytes_per_clock;                  // read plus written by a copy, of the whole device
  int64_t least_room = int64_t{32} << 20;  // bytes that partial sums may always take
  double launch_cycles = 5000;             // assumed: per kernel after the first
  int64_t blocks = kMaxBlocks;             // of a launch
};

constexpr int kMostTogether = 4;                   // largest number of blocks per multiprocessor that plans consider
constexpr int kMostBlocks = kThreads<float> / 32;  // blocks of one warp whose registers fit in a multiprocessor

// Return the limits of a block when `together` blocks share a multiprocessor.
template <typename S>
Limits share_of(const Limits& limits, int together) {
  Limits share = limits;
  share.threads = std::min(limits.threads, kThreads<S> / together / 32 * 32);
  const int64_t shared =
      limits.shared_of_multiprocessor / together / kSharedUnit * kSharedUnit - limits.shared_reserved - kHeaderBytes;
  if (together > 1) share.shared_bytes = std::min(limits.shared_bytes, shared);
  return share;
}

struct Plan {
  int threads;            // per block, one position each at a time; 0 if shared memory is too small
  int stages;             // buffers per array; 2: the next tile is loaded while this one is computed
  int piece;              // neighbouring values that one instruction can move
  int channels;           // per block, processed one after another for each tile; backward only
  int chunks;             // launches, each for a chunk of the tiles of a sweep; backward only, see parts.h
  int chunk;              // the chunk of this launch; the last chunk is launched first
  bool split;             // whether each sweep is a separate task
  int runs;               // per sweep, each a separate task: Problem::run
  int resident;           // arrays that stay in shared memory between sweeps: see ForwardMemory, BackwardMemory
  int resident_pitch;     // distance between their rows in values; backward only, see resident.h
  bool merges_narrow;     // forward: the running merge has the dtype of the tensors, in out itself
  bool carry_in_shared;   // whether lines carried from tile to tile are in shared memory; see segments.h
  int64_t carry_values;   // values of these lines, per block
  int64_t scratch_bytes;  // per block, in shared memory
  int64_t tasks, blocks;
  int64_t workspace_bytes;  // per launch, in global memory

  // Offsets into the workspace.
  int64_t planes;  // separate sweeps (D, N, C, H, W) or running merge (N, C, H, W), in the hidden state's dtype
  int64_t carry, partial_gates, partial_source;
  unsigned char* workspace;
};

inline int value_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}
inline int state_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : 4;
}

// Call visit with a value of a type as wide as the dtype. Plans depend on the width only.
template <typename Visit>
void with_width(DType dtype, Visit visit) {
  switch (value_bytes(dtype)) {
    case 8: return visit(double{});
    case 4: return visit(float{});
    default: return visit(uint16_t{});
  }
}

inline int64_t round_up(int64_t value, int64_t unit) {
  return (value + unit - 1) / unit * unit;
}

inline int64_t reserve(Plan& plan, int64_t bytes) {
  const int64_t offset = round_up(plan.workspace_bytes, 256);
  plan.workspace_bytes = offset + bytes;
  return offset;
}

// Divide the pass into tasks of `channels` channels. A task computes all their sweeps one after another or, with
// `split`, one run of one sweep.
inline void divide(Plan& plan, const Problem& p, const Limits& limits, int channels, bool split, int runs) {
  plan.channels = channels;
  plan.split = split;
  plan.runs = runs;
  plan.tasks = p.batch * p.channels / channels * (split ? p.directions : 1) * runs;
  plan.blocks = std::min(plan.tasks, limits.blocks);
}

// Return the largest number of neighbouring values, at most 16 bytes, that divides the width and is aligned in all
// arrays.
inline int piece_of(const Problem& p, std::initializer_list<const void*> arrays) {
  int piece = p.dtype == DType::float64 ? 2 : 4;
  const auto fits = [&](const void* array) {
    return p.width % piece == 0 && reinterpret_cast<uintptr_t>(array) % (piece * value_bytes(p.dtype)) == 0;
  };
  for (const void* array : arrays) {
    while (piece > 1 && !fits(array)) piece /= 2;
  }
  return piece;
}

// Return a number of threads, at most `most`, with which each line is divided into as few and as equal segments as
// possible.
inline int threads_for(const Problem& p, int most) {
  int64_t threads = 32;
  for (int d = 0; d < p.directions; ++d) {
    const int64_t positions = p.sweep(d).positions, count = Segments(positions, most).count;
    threads = std::max(threads, count == 1 ? positions : (positions + count - 1) / count + 2 * kLines);
  }
  return static_cast<int>(round_up(threads, 32));
}

// Set threads and scratch for `stages` stages, with `thread_bytes` per thread and `fixed_bytes` per block. Carried
// lines stay in shared memory if enough threads remain. Return false if fewer threads fit than segments need.
inline bool place(Plan& plan, const Problem& p, const Limits& limits, int stages, int64_t thread_bytes,
                  int64_t fixed_bytes) {
  int64_t longest = 1;
  for (int d = 0; d < p.directions; ++d) longest = std::max(longest, p.sweep(d).positions);
  const auto most_threads = [&](int64_t carry_bytes) {
    const int64_t room = std::max<int64_t>(0, limits.shared_bytes - fixed_bytes - carry_bytes) / thread_bytes;
    return static_cast<int>(std::min<int64_t>(room, limits.threads) / 32 * 32);
  };
  const auto take = [&](int64_t carry_bytes) {
    const int most = most_threads(carry_bytes);
    if (most < 32 || (most < longest && most < 2 * kLines + 32)) return false;
    plan.threads = threads_for(p, most);
    plan.scratch_bytes = fixed_bytes + carry_bytes + plan.threads * thread_bytes;
    return true;
  };
  // The longest line that is carried from tile to tile. A sweep of one tile has none.
  int64_t carried = 0;
  for (int d = 0; d < p.directions; ++d) {
    const Sweep s = p.sweep(d);
    const bool carries = s.positions > most_threads(0) || plan.channels > 1 || plan.chunks > 1;
    if (carries && s.lines > kLines) carried = std::max(carried, s.positions);
  }
  plan.stages = stages;
  plan.carry_values = 2 * plan.channels * carried;
  plan.carry_in_shared = false;
  if (carried > 0) {
    // Carried lines leave fewer threads, which may make the lines of another sweep too long for a block.
    const int64_t all = 2 * plan.channels * longest, bytes = round_up(all * state_bytes(p.dtype), 16);
    plan.carry_in_shared = plan.chunks == 1 && bytes <= limits.shared_bytes / 8 && take(bytes);
    if (plan.carry_in_shared) {
      plan.carry_values = all;
      return true;
    }
  }
  return take(0);
}

// Call visit(share, split, runs, kept, stages) for each way to divide a pass whose blocks process `channels` channels:
//
//   share   the limits of a block on its multiprocessor
//   split   whether sweeps are separate tasks
//   runs    number of runs per sweep
//   kept    number of arrays that stay in shared memory between sweeps
//   stages  number of stages per tile
template <typename S, typename Visit>
void for_plans(const Problem& p, const Limits& limits, int64_t channels, int most_kept, Visit visit) {
  for (const bool split : {false, true}) {
    if (split ? p.directions == 1 : p.directions > 1 && p.merge == Merge::none) continue;
    const bool alone = split || p.directions == 1;
    const int64_t sweeps = p.batch * p.channels / channels * (split ? p.directions : 1);
    const int64_t enough = int64_t{limits.multiprocessors} * kMostTogether, most = alone ? p.most_pieces() : 1;
    for (int64_t runs = 1;; runs = std::min(2 * runs, most)) {
      for (int together = 1; together <= kMostTogether; ++together) {
        // Fewer blocks per multiprocessor already hold all tasks.
        if (sweeps * runs <= int64_t{limits.multiprocessors} * (together - 1)) break;
        const Limits share = share_of<S>(limits, together);
        for (int kept = alone ? 0 : most_kept; kept >= 0; --kept) {
          for (const int stages : {2, 1}) visit(share, split, static_cast<int>(runs), kept, stages);
        }
      }
      if (runs == most || sweeps * runs >= enough) break;
    }
  }
}

// Reserve global memory for carried lines that do not fit in shared memory: for as many blocks as run at the same time,
// or for all blocks if the next launch continues from these lines.
inline void reserve_carry(Plan& plan, const Problem& p, const Limits& limits) {
  if (plan.carry_values == 0 || plan.carry_in_shared) return;
  if (plan.chunks == 1) plan.blocks = std::min<int64_t>(plan.blocks, limits.multiprocessors * kMostBlocks);
  plan.carry = reserve(plan, plan.blocks * plan.carry_values * state_bytes(p.dtype));
}

}  // namespace cuda
}  // namespace spn
