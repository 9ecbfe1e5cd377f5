// How a pass is cut into blocks, and what each block keeps where. Plain host code: the emulator runs it too.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../problem.h"

namespace spn {
namespace cuda {

// Threads a block may have, so that each still gets the registers that it needs.
template <typename State>
constexpr int kForwardThreads = sizeof(State) == 8 ? 512 : 1024;  // where each position has a thread of its own
constexpr int kThreads = 512;                                     // everywhere else

constexpr int64_t kHeaderBytes = 512;  // of shared memory: where two sweeps' pointers are kept
constexpr int kRungLines = 4;  // the backward pass keeps every 4th line of a block of kCheckpointLines, see backward.h
constexpr int kRungs = static_cast<int>(kCheckpointLines) / kRungLines;
constexpr int kForwardLines = 2;                               // lines of running state
constexpr int kBackwardLines = kRungs + (kRungLines - 1) + 5;  // rungs, lines of a rung, what a line sends back
constexpr int64_t kMaxBlocks = int64_t{1} << 30;

// What the device offers. `shared_bytes` is what a block may use beyond the header.
struct Limits {
  int64_t shared_bytes;
  int multiprocessors;
  int threads;
};

struct Plan {
  int threads;
  int tiles;                     // of 32 positions, on the longest line
  int lines_log2;                // lines of a tile
  int stages;                    // 2: the next tile arrives while this one is computed
  bool fits;                     // forward: each position has a thread of its own, and scratch is shared memory
  bool in_shared;                // scratch is shared memory
  bool paired;                   // 2-byte values can be moved two at a time
  bool split;                    // each sweep is a task of its own
  bool resident;                 // x and the running merge stay in shared memory
  bool merges_narrow;            // the running merge is kept in the tensors' dtype, in out itself
  bool wide_gates, wide_source;  // gradients that are summed over channels later, in the state's precision
  int64_t tasks, blocks;
  int64_t scratch_bytes;    // of a block
  int64_t workspace_bytes;  // of the launch, global: scratch, planes, partial gradients

  // Offsets into the workspace.
  int64_t planes;  // separate sweeps (D, N, C, H, W), or the running merge (N, C, H, W), in the state's dtype
  int64_t partial_gates, partial_source;
  unsigned char* workspace;
};

inline int value_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2;
}
inline int state_bytes(DType dtype) {
  return dtype == DType::float64 ? 8 : 4;
}

// Values that a resident plane takes, and bytes that the two of them take: the running merge, and x.
SPN_HD int64_t resident_values(const Problem& p) {
  return (p.plane() + 7) / 8 * 8;
}
SPN_HD int64_t resident_bytes(const Problem& p) {
  const int value = p.dtype == DType::float64 ? 8 : p.dtype == DType::float32 ? 4 : 2;
  return resident_values(p) * (value + (value > 4 ? value : 4));
}

inline int64_t aligned(int64_t bytes) {
  return (bytes + 255) / 256 * 256;
}

// The longest line of the problem's sweeps.
inline int64_t longest_line(const Problem& p) {
  int64_t longest = 1;
  for (int d = 0; d < p.directions; ++d) longest = std::max(longest, p.sweep(d).positions);
  return longest;
}

inline Plan common_plan(const Problem& p, const Limits& limits, int max_threads,
                        std::initializer_list<const void*> pointers) {
  Plan plan{};
  const int64_t longest = longest_line(p);
  const int most = std::min(limits.threads, max_threads);
  plan.tiles = static_cast<int>((longest + 31) / 32);
  plan.threads = static_cast<int>(std::min<int64_t>(most, int64_t{plan.tiles} * 32));
  plan.paired = value_bytes(p.dtype) == 2 && p.width % 2 == 0;
  for (const void* pointer : pointers) plan.paired = plan.paired && reinterpret_cast<uintptr_t>(pointer) % 4 == 0;
  // Fewer planes than multiprocessors: the sweeps run side by side, and their planes are merged afterwards.
  const bool few = p.batch * p.channels * 2 <= limits.multiprocessors;
  plan.split = p.directions > 1 && (p.merge == Merge::none || few);
  plan.tasks = p.batch * p.channels * (plan.split ? p.directions : 1);
  plan.stages = 1;
  return plan;
}

inline void place(Plan& plan, const Limits& limits, int64_t scratch_bytes) {
  plan.scratch_bytes = scratch_bytes;
  plan.in_shared = scratch_bytes <= limits.shared_bytes;
  plan.fits = plan.in_shared && plan.threads == plan.tiles * 32;
  if (!plan.fits) plan.threads = std::min(plan.threads, kThreads);
  plan.blocks = std::min(plan.tasks, kMaxBlocks);
  if (!plan.in_shared) {
    plan.scratch_bytes = aligned(scratch_bytes);
    plan.blocks = std::min<int64_t>(plan.blocks, limits.multiprocessors * 2);
    plan.workspace_bytes = plan.scratch_bytes * plan.blocks;
  }
}

inline int64_t reserve(Plan& plan, int64_t bytes) {
  const int64_t offset = aligned(plan.workspace_bytes);
  plan.workspace_bytes = offset + bytes;
  return offset;
}

inline int64_t forward_scratch(const Problem& p, const Plan& plan, int lines_log2, int stages, bool resident) {
  const int64_t positions = int64_t{plan.tiles} * 32;
  const int64_t arrays = p.source_groups ? 5 : 4;
  const int64_t tiles = stages * arrays * (positions << lines_log2) * value_bytes(p.dtype);
  return tiles + kForwardLines * positions * state_bytes(p.dtype) + (resident ? resident_bytes(p) : 0);
}

// Blocks that a multiprocessor holds: each takes its scratch, the header, and what the device keeps for itself.
inline int64_t blocks_together(const Limits& limits, int64_t scratch_bytes) {
  constexpr int64_t kTaken = kHeaderBytes + 1024;
  return (limits.shared_bytes + kTaken) / (scratch_bytes + kTaken);
}

// Two stages where they cost no block its place beside the others on a multiprocessor, or there are blocks to spare.
inline bool wants_two_stages(const Plan& plan, const Limits& limits, int64_t one, int64_t two) {
  if (two > limits.shared_bytes) return false;
  const int64_t together = blocks_together(limits, two);
  return together >= 4 || together == blocks_together(limits, one) || plan.tasks <= limits.multiprocessors * together;
}

inline Plan plan_forward(const ForwardArgs& f, const Limits& limits) {
  Plan plan = common_plan(f, limits, f.dtype == DType::float64 ? kForwardThreads<double> : kForwardThreads<float>,
                          {f.x, f.gates, f.source});
  const bool merges = f.directions > 1 && f.merge != Merge::none;
  int lines_log2 = value_bytes(f.dtype) == 8 ? 2 : value_bytes(f.dtype) == 4 ? 3 : 4;  // a tile's row is one sector
  const auto bytes = [&](int stages) { return forward_scratch(f, plan, lines_log2, stages, plan.resident); };
  plan.resident = merges && !plan.split && plan.threads == plan.tiles * 32;
  if (bytes(1) > limits.shared_bytes) plan.resident = false;
  while (lines_log2 > 2 && bytes(1) > limits.shared_bytes) --lines_log2;
  plan.lines_log2 = lines_log2;
  plan.stages = wants_two_stages(plan, limits, bytes(1), bytes(2)) ? 2 : 1;
  place(plan, limits, bytes(plan.stages));
  const int64_t planes = f.batch * f.channels * f.plane() * state_bytes(f.dtype);
  if (merges && plan.split) plan.planes = reserve(plan, planes * f.directions);
  const bool wider = state_bytes(f.dtype) > value_bytes(f.dtype);
  // The maximum of rounded values is the rounded maximum; only which direction won could differ.
  plan.merges_narrow = merges && !plan.split && !plan.resident && wider && f.merge == Merge::max && !f.winner;
  if (merges && !plan.split && !plan.resident && wider && !plan.merges_narrow) plan.planes = reserve(plan, planes);
  return plan;
}

inline int64_t backward_scratch(const Problem& p, const Plan& plan, int lines_log2) {
  const int64_t positions = int64_t{plan.tiles} * 32;
  int64_t of_value = (p.source_groups ? 6 : 5) * value_bytes(p.dtype);
  if (p.merge == Merge::max) of_value += 1;
  if (plan.wide_gates) of_value += 3 * state_bytes(p.dtype);
  if (plan.wide_source) of_value += state_bytes(p.dtype);
  return of_value * (positions << lines_log2) + kBackwardLines * positions * state_bytes(p.dtype);
}

inline Plan plan_backward(const BackwardArgs& b, const Limits& limits) {
  Plan plan = common_plan(b, limits, kThreads, {b.grad, b.x, b.gates, b.source});
  const bool wider = state_bytes(b.dtype) > value_bytes(b.dtype);
  const bool shares_gates = b.gate_groups < b.channels;
  const bool shares_source = b.source_groups && b.source_groups < b.channels;
  plan.wide_gates = shares_gates && wider;
  plan.wide_source = shares_source && wider;
  int lines_log2 = 4;  // a whole block of kCheckpointLines: gates are read once
  while (lines_log2 > 2 && backward_scratch(b, plan, lines_log2) > limits.shared_bytes) --lines_log2;
  plan.lines_log2 = lines_log2;
  place(plan, limits, backward_scratch(b, plan, lines_log2));
  const int64_t planes = b.batch * b.channels * b.plane() * state_bytes(b.dtype);
  if (plan.split) plan.planes = reserve(plan, planes * b.directions);
  if (b.directions > 1 && !plan.split && wider) plan.planes = reserve(plan, planes);
  if (shares_gates) plan.partial_gates = reserve(plan, planes * b.directions * 3);
  if (shares_source) plan.partial_source = reserve(plan, planes * b.directions);
  return plan;
}

}  // namespace cuda
}  // namespace spn
