// Estimates the runtime of a plan from counts alone. The planner chooses the plan with the lowest estimate.
//
// A round is the set of tasks that run at the same time. Its time is the longer of the following two. If a
// multiprocessor has only one block with one stage, nothing overlaps, and the time is their sum.
//
//   memory     bytes that the tasks move / bytes per clock cycle
//
//   computing  lines that a block walks x clock cycles per line. All warps issue their instructions for the line. Then
//              the line waits for shared memory, dependent arithmetic and a barrier. Other blocks on the multiprocessor
//              work in the meantime.
//
// docs/cuda_kernels.md lists what is counted and what is assumed. This is plain host code.
#pragma once

#include "plan.h"

namespace spn {
namespace cuda {

struct Cost {
  int64_t bytes;  // moved by the schedule
  int together;   // blocks that share a multiprocessor
  int64_t rounds;
  double memory;     // clock cycles
  double computing;  // clock cycles
  double cycles;
};

// Instructions per warp and line, counted by benchmarks/cuda/instructions.py for pieces of 4, 2 and 1 values: the mean
// of horizontal and vertical sweeps. It has no counts for 8-byte values; they are assumed to need twice those for 4
// bytes.
enum class Pass : int { forward, backward, backward_on_chip };
inline double instructions_of(Pass pass, int piece, int bytes) {
  constexpr int kCounted[3][2][3] = {
      {{46, 54, 75}, {53, 62, 104}}, {{128, 171, 234}, {140, 183, 262}}, {{140, 160, 180}, {150, 170, 191}}};
  const int counted = kCounted[static_cast<int>(pass)][bytes == 2 ? 1 : 0][piece == 4 ? 0 : piece == 2 ? 1 : 2];
  return bytes == 8 ? 2 * counted : counted;
}

constexpr double kBranches = 1.1;                // assumed: accounts for instructions missing from the counts
constexpr double kLineLatency[] = {65, 2 * 75};  // assumed: forward; backward walks lines twice
constexpr double kTileLatency = 300;             // assumed: wait at the first and last lines of a tile
constexpr double kBytesOfMultiprocessor = 64;    // assumed: maximum per multiprocessor and cycle
constexpr int kSchedulers = 4;

// Bytes that a pass moves: in its main kernel, and in the kernels that merge results of separate blocks afterwards.
struct Moved {
  int64_t bytes, after;
  int launches_after;
};

inline Cost cost_of(const Problem& p, const Plan& plan, const Limits& limits, Pass pass, const Moved& moved) {
  Cost cost{};
  cost.bytes = moved.bytes + moved.after;
  const int64_t shared = round_up(kHeaderBytes + plan.scratch_bytes + limits.shared_reserved, kSharedUnit);
  const int most = (p.dtype == DType::float64 ? kThreads<double> : kThreads<float>) / plan.threads;
  cost.together =
      static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(limits.shared_of_multiprocessor / shared, most)));

  // Lines per task. If sweeps or runs are separate tasks, this is the mean of all; the last round waits for the
  // longest.
  double all = 0, longest = 0;
  for (int d = 0; d < p.directions; ++d) {
    const Sweep s = p.sweep(d);
    const int64_t run = plan.runs > 1 ? (p.piece_count(d) + plan.runs - 1) / plan.runs * p.lines_of_piece(d) : s.lines;
    const double lines = static_cast<double>(round_up(run, kLines)) * Segments(s.positions, plan.threads).count;
    all += lines;
    longest = std::max(longest, lines);
  }
  const double mean = plan.split ? all / p.directions : all;
  if (!plan.split) longest = all;

  const double warps = plan.threads / 32.0;
  const double issue = instructions_of(pass, plan.piece, value_bytes(p.dtype)) * kBranches;
  const double latency = kLineLatency[pass == Pass::forward ? 0 : 1] + kTileLatency / kLines;
  const auto issued = [&](int blocks) { return std::ceil(blocks * warps / kSchedulers) * issue; };
  const auto add_round = [&](double tasks, int blocks, double lines) {
    const double computing = plan.channels * lines * std::max(issued(blocks), issued(1) + latency);
    const double active = std::min<double>(tasks, limits.multiprocessors);
    const double rate = std::min(limits.bytes_per_clock, active * kBytesOfMultiprocessor);
    const double memory = static_cast<double>(moved.bytes) * tasks / plan.tasks / rate;
    const bool overlap = plan.stages == 2 || blocks > 1;
    cost.memory += memory;
    cost.computing += computing;
    cost.cycles += overlap ? std::max(memory, computing) : memory + computing;
  };
  const int64_t a_round = int64_t{limits.multiprocessors} * cost.together;
  const int64_t rounds = plan.tasks / a_round, left = plan.tasks % a_round;
  if (rounds > 0) {
    add_round(static_cast<double>(rounds * a_round), cost.together, static_cast<double>(rounds) * mean);
  }
  if (left > 0) {
    const int blocks = static_cast<int>((left + limits.multiprocessors - 1) / limits.multiprocessors);
    add_round(static_cast<double>(left), blocks, longest);
  }
  cost.rounds = rounds + (left > 0);
  const double after = static_cast<double>(moved.after) / limits.bytes_per_clock;
  cost.memory += after;
  cost.cycles += after + moved.launches_after * limits.launch_cycles;
  return cost;
}

// A split plan needs four times the memory of x, so it must save a fifth of the time.
constexpr double kPriceOfPlanes = 1.25;

// The best of the offered plans. Plans within the bound on their workspace come first; among these, the lowest
// estimated time decides.
struct Choice {
  Plan plan{};
  Cost cost{};
  int64_t beyond = 0;  // bytes above the bound

  void offer(const Plan& other, const Cost& its, int64_t workspace_bound = std::numeric_limits<int64_t>::max()) {
    const int64_t over = std::max<int64_t>(0, other.workspace_bytes - workspace_bound);
    const auto rank = [](int64_t bytes, const Plan& p, const Cost& c) {
      const double price = p.split ? kPriceOfPlanes : 1;
      return std::make_tuple(bytes, c.cycles * price, c.memory + c.computing, c.bytes);
    };
    if (plan.threads && rank(over, other, its) >= rank(beyond, plan, cost)) return;
    plan = other;
    cost = its;
    beyond = over;
  }
};

}  // namespace cuda
}  // namespace spn
