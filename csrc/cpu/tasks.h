// How the work is cut into tasks for threads. The cut never changes a result, only who computes it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

#include "../problem.h"

namespace spn {

// Calls body(begin, end) on torch's threads until 0 .. count - 1 are covered; chunks of at least `grain`.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

template <typename Body>
void for_tasks(int64_t count, Body body) {
  parallel_for(count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) body(task);
  });
}

// Calls body(begin, end) until 0 .. count - 1 are covered, in pieces that stay in the first level of the cache.
template <typename Body>
void for_pieces(int64_t count, Body body) {
  constexpr int64_t kPiece = 1 << 11;
  const int64_t pieces = (count + kPiece - 1) / kPiece;
  parallel_for(pieces, 8, [&](int64_t first, int64_t last) {
    for (int64_t p = first; p < last; ++p) body(p * kPiece, std::min((p + 1) * kPiece, count));
  });
}

// Channels that go through a block of lines together while its gates are at hand, all in one gate group.
struct ChannelTasks {
  static constexpr int64_t kTogether = 8;
  int64_t group_size, per_group, count;

  explicit ChannelTasks(const Problem& problem)
      : group_size(problem.channels / problem.gate_groups),
        per_group((group_size + kTogether - 1) / kTogether),
        count(problem.batch * problem.gate_groups * per_group) {}

  void range(const Problem& problem, int64_t task, int64_t& n, int64_t& c0, int64_t& c1) const {
    const int64_t group = task / per_group;
    n = group / problem.gate_groups;
    const int64_t begin = group % problem.gate_groups * group_size;
    c0 = begin + task % per_group * kTogether;
    c1 = std::min(c0 + kTogether, begin + group_size);
  }
};

// Channels whose gate and source gradients depend on one another: a task must own whole groups of both kinds.
struct GroupTasks {
  int64_t size, per_sample, count;

  explicit GroupTasks(const Problem& problem) {
    const int64_t gate_size = problem.channels / problem.gate_groups;
    const int64_t source_size = problem.source_groups ? problem.channels / problem.source_groups : 1;
    size = gate_size;
    while (size % source_size) size += gate_size;
    per_sample = problem.channels / size;
    count = problem.batch * per_sample;
  }

  void range(int64_t task, int64_t& n, int64_t& c0, int64_t& c1) const {
    n = task / per_sample;
    c0 = task % per_sample * size;
    c1 = c0 + size;
  }
};

// Whether each sweep should be a task of its own, with a plane of its own that is merged afterwards: worth its memory
// only where whole planes would leave threads without work.
inline bool wants_separate_sweeps(const Problem& problem, int64_t tasks, int64_t threads) {
  return problem.directions > 1 && tasks < 4 * threads && tasks % threads != 0;
}

// The order in which four sweeps become tasks: threads take tasks in runs, and a horizontal sweep takes longer.
inline int direction_of_task(int64_t task) {
  constexpr int order[] = {0, 2, 1, 3};
  return order[task];
}

}  // namespace spn
