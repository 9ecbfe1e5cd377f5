// How a pass is cut into blocks: what the plans of both passes share. Plain host code: the emulator runs it too.
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

// The running state of tensors of S.
template <typename S>
using StateOf = std::conditional_t<sizeof(S) == 8, double, float>;

// Threads of the largest block: each needs about 160 registers.
template <typename S>
constexpr int kThreads = sizeof(S) == 8 ? 256 : 384;

constexpr int64_t kHeaderBytes = 640;  // of shared memory: where two sweeps' pointers are kept
constexpr int64_t kSharedUnit = 128;   // bytes: shared memory is given out in such units
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

// What the device offers.
struct Limits {
  int64_t shared_bytes;  // of a block, beyond the header
  int multiprocessors;
  int threads;                             // of a block
  int64_t shared_of_multiprocessor;        // for the blocks that share it
  int64_t shared_reserved;                 // that each of them takes besides
  double bytes_per_clock;                  // that a copy moves, read and written
  int64_t least_room = int64_t{32} << 20;  // bytes that parts of sums may take in any case
  double launch_cycles = 5000;             // assumed: of each kernel after the first
  int64_t blocks = kMaxBlocks;             // of a launch
};

constexpr int kMostTogether = 4;                   // blocks that a plan puts on a multiprocessor
constexpr int kMostBlocks = kThreads<float> / 32;  // that its registers hold: of a warp each

// What a block may use where `together` of them share a multiprocessor.
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
  int threads;            // of a block, one position each at a time; none where shared memory is too small
  int stages;             // 2: the next tile arrives while this one is computed
  int piece;              // neighbouring values that can be moved at once
  int channels;           // that a block takes one after the other, tile by tile; backward only
  int chunks;             // launches that a sweep's tiles are cut into; backward only: see parts.h
  int chunk;              // that this launch computes; launches go from the last to the first
  bool split;             // each sweep is a task of its own
  int runs;               // that each sweep is cut into, tasks of their own: Problem::run
  int resident;           // arrays that stay in shared memory from sweep to sweep: see the pass's memory
  int resident_pitch;     // values from row to row of those, backward: see resident.h
  bool merges_narrow;     // forward: the running merge is kept in the tensors' dtype, in out itself
  bool carry_in_shared;   // lines that go from tile to tile: see segments.h
  int64_t carry_values;   // of a block
  int64_t scratch_bytes;  // of a block, in shared memory
  int64_t tasks, blocks;
  int64_t workspace_bytes;  // of the launch, in global memory

  // Offsets into the workspace.
  int64_t planes;  // separate sweeps (D, N, C, H, W), or the running merge (N, C, H, W), in the state's dtype
  int64_t carry, partial_gates, partial_source;
  unsigned char* workspace;
};

inline int value_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}
inline int state_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : 4;
}

// visit(a value as wide as the tensors'): plans ask for no more.
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

// Tasks of `channels` channels each: all sweeps of them one after the other, or with `split` each of its own, in
// `runs`.
inline void divide(Plan& plan, const Problem& p, const Limits& limits, int channels, bool split, int runs) {
  plan.channels = channels;
  plan.split = split;
  plan.runs = runs;
  plan.tasks = p.batch * p.channels / channels * (split ? p.directions : 1) * runs;
  plan.blocks = std::min(plan.tasks, limits.blocks);
}

// The most neighbouring values, at most 16 bytes, that divide rows and are aligned in every array.
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

// Threads that cut every sweep's lines evenly.
inline int threads_for(const Problem& p, int most) {
  int64_t threads = 32;
  for (int d = 0; d < p.directions; ++d) {
    const int64_t positions = p.sweep(d).positions, count = Segments(positions, most).count;
    threads = std::max(threads, count == 1 ? positions : (positions + count - 1) / count + 2 * kLines);
  }
  return static_cast<int>(round_up(threads, 32));
}

// Sets threads and scratch for `stages` stages: `thread_bytes` for each thread and `fixed_bytes` for all. Carried lines
// stay in shared memory where that leaves threads enough. Fails where there are fewer threads than segments need.
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
  // The longest line that goes on from tile to tile: a sweep of one tile has none.
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
    // Threads that carried lines displace may make another sweep's lines too long for a block.
    const int64_t all = 2 * plan.channels * longest, bytes = round_up(all * state_bytes(p.dtype), 16);
    plan.carry_in_shared = plan.chunks == 1 && bytes <= limits.shared_bytes / 8 && take(bytes);
    if (plan.carry_in_shared) {
      plan.carry_values = all;
      return true;
    }
  }
  return take(0);
}

// visit(share, split, runs, kept, stages) for each way to cut a pass whose blocks take `channels` channels:
//
//   share   what a block has of a multiprocessor
//   split   whether sweeps are tasks of their own
//   runs    that each of these is cut into
//   kept    how many arrays stay on chip from sweep to sweep
//   stages  of tiles
template <typename S, typename Visit>
void for_plans(const Problem& p, const Limits& limits, int64_t channels, int most_kept, Visit visit) {
  for (const bool split : {false, true}) {
    if (split ? p.directions == 1 : p.directions > 1 && p.merge == Merge::none) continue;
    const bool alone = split || p.directions == 1;
    const int64_t sweeps = p.batch * p.channels / channels * (split ? p.directions : 1);
    const int64_t enough = int64_t{limits.multiprocessors} * kMostTogether, most = alone ? p.most_pieces() : 1;
    for (int64_t runs = 1;; runs = std::min(2 * runs, most)) {
      for (int together = 1; together <= kMostTogether; ++together) {
        // There are no more to share with.
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

// Room for carried lines in global memory, where shared memory has none: of as many blocks as run at a time, or of all
// where the next launch goes on from there.
inline void reserve_carry(Plan& plan, const Problem& p, const Limits& limits) {
  if (plan.carry_values == 0 || plan.carry_in_shared) return;
  if (plan.chunks == 1) plan.blocks = std::min<int64_t>(plan.blocks, limits.multiprocessors * kMostBlocks);
  plan.carry = reserve(plan, plan.blocks * plan.carry_values * state_bytes(p.dtype));
}

}  // namespace cuda
}  // namespace spn
