// Divides the work into tasks for threads. The division affects only which thread computes a result, never the result.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "../problem.h"

namespace spn {

// Call body(begin, end) on torch's threads until 0 .. count - 1 are covered, in chunks of at least `grain`.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

// Call body(begin, end) until 0 .. count - 1 are covered, in pieces that fit in the first-level cache.
template <typename Body>
void for_pieces(int64_t count, Body body) {
  constexpr int64_t kPiece = 1 << 11;
  const int64_t pieces = (count + kPiece - 1) / kPiece;
  parallel_for(pieces, 8, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) body(p * kPiece, std::min((p + 1) * kPiece, count));
  });
}

// Planes 0 .. N C - 1 of x, divided into runs of `group` planes; each run is divided into tasks of at most `together`
// planes.
struct PlaneTasks {
  int64_t group, together, per_group, count;

  PlaneTasks(const Problem& problem, int64_t group_, int64_t together_)
      : group(group_),
        together(together_),
        per_group((group + together - 1) / together),
        count((problem.batch * problem.channels + group - 1) / group * per_group) {}

  void range(int64_t task, int64_t& begin, int64_t& end) const {
    const int64_t first = task / per_group * group;
    begin = first + task % per_group * together;
    end = std::min(begin + together, first + group);
  }
};

// Call body(begin, end, i) for every task and i = 0 .. times - 1.
template <typename Body>
void for_tasks(const PlaneTasks& tasks, int64_t times, Body body) {
  parallel_for(tasks.count * times, 1, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      int64_t begin, end;
      tasks.range(k / times, begin, end);
      body(begin, end, k % times);
    }
  });
}

inline Run whole_sweep(const Problem& problem, int d) {
  return {0, problem.sweep(d).lines};
}

// Return the number of runs per sweep (Problem::run). It is 1 if whole sweeps are enough tasks for any number of
// threads.
inline int64_t runs_of_a_sweep(const Problem& problem, int64_t sweeps) {
  constexpr int64_t kEnough = 64;
  return std::min(problem.most_pieces(), std::max<int64_t>(1, kEnough / std::max<int64_t>(1, sweeps)));
}

// A task processes several planes per block of lines while their shared gates are in the cache.
inline PlaneTasks forward_plane_tasks(const Problem& problem) {
  return {problem, problem.gate_size(), 4};
}

// Gradients of shared gates and source are sums over planes, so a task owns whole groups of both.
inline PlaneTasks backward_plane_tasks(const Problem& problem) {
  int64_t size = problem.gate_size();
  while (size % problem.source_size()) size += problem.gate_size();
  return {problem, size, size};
}

// The same for sets of `lanes` interleaved planes. A set holds whole groups, or a group fills whole sets.
inline PlaneTasks forward_set_tasks(const Problem& problem, int64_t lanes) {
  const int64_t size = problem.gate_size();
  if (size > lanes) return {problem, size, 4 * lanes};
  return {problem, problem.batch * problem.channels, lanes / size * size};
}

inline PlaneTasks backward_set_tasks(const Problem& problem, int64_t lanes) {
  const int64_t size = problem.gate_size();
  if (size > lanes) return {problem, size, size};
  return forward_set_tasks(problem, lanes);
}

// Return whether to interleave planes: they must be so small that a set stays in the caches, and must fill at least
// half of a set.
inline bool takes_sets(const Problem& problem, int64_t lanes) {
  constexpr int64_t kLargest = 64 * 64;
  const int64_t size = problem.gate_size(), planes = problem.batch * problem.channels;
  const int64_t filled =
      size > lanes ? size * lanes / ((size + lanes - 1) / lanes * lanes) : std::min(lanes / size * size, planes);
  return problem.plane() <= kLargest && 2 * filled >= lanes;
}

// Sums over groups of the source are formed within a set, or in the same way as the sums of the gates.
inline bool takes_sets_backward(const Problem& problem, int64_t lanes) {
  const int64_t size = problem.source_size();
  return takes_sets(problem, lanes) && (size == 1 || size == problem.gate_size());
}

// Return whether each sweep should be a task with a separate plane that is merged afterwards. This is worth its memory
// only if whole planes would leave threads without work.
inline bool wants_separate_sweeps(const Problem& problem, int64_t tasks, int64_t threads) {
  return problem.directions > 1 && tasks < 4 * threads && tasks % threads != 0;
}

// Call body(begin, end, d, run) for every sweep of every task. Sets of small planes are not divided into runs.
template <typename Body>
void for_sweeps(const Problem& problem, const PlaneTasks& tasks, bool cuts, Body body) {
  // Threads take consecutive tasks, and a horizontal sweep takes longer than a vertical one.
  constexpr int order[] = {0, 2, 1, 3};
  const int64_t runs = cuts ? runs_of_a_sweep(problem, tasks.count * problem.directions) : 1;
  for_tasks(tasks, problem.directions * runs, [&](int64_t begin, int64_t end, int64_t i) {
    const int d = problem.directions > 1 ? order[i / runs] : 0;
    const Run run = problem.run(d, runs, i % runs);
    if (run.first < run.end) body(begin, end, d, run);
  });
}

}  // namespace spn
