// The backward pass's plan: host code.
#pragma once

#include "backward_memory.h"

namespace spn {
namespace cuda {

inline int64_t sharing_gates(const Problem& p) {
  return p.channels / p.gate_groups;
}
inline int64_t sharing_source(const Problem& p) {
  return p.source_groups ? p.channels / p.source_groups : 1;
}

template <typename S>
bool place_backward(Plan& plan, const Problem& p, const Limits& limits, int stages, int resident) {
  using Memory = BackwardMemory<S>;
  plan.resident = resident;
  const bool placed = place(plan, p, limits, kThreads<S>, stages,
                            Memory::thread_bytes(p, plan.channels, stages, resident), Memory::fixed_bytes(p, plan));
  return placed && !(resident && plan.threads < std::max(p.height, p.width));  // walked whole lines at a time
}

// Two stages before resident planes: with one, the multiprocessor waits for every tile.
template <typename S>
bool place_backward(Plan& plan, const Problem& p, const Limits& limits) {
  const bool may_reside = p.directions > 1 && !plan.split;
  for (const int stages : {2, 1}) {
    for (int resident = may_reside ? BackwardMemory<S>::kept_all : 0; resident >= 0; --resident) {
      if (place_backward<S>(plan, p, limits, stages, resident)) return true;
    }
  }
  return false;
}

inline Plan plan_backward(const BackwardArgs& b, const Limits& limits) {
  Plan plan{};
  plan.piece = piece_of(b, {b.grad, b.x, b.gates, b.source, b.winner, b.grad_x, b.grad_gates, b.grad_source});
  plan.resident_pitch = static_cast<int>(resident_pitch(b, plan.piece));
  const int64_t gates = sharing_gates(b), source = sharing_source(b);
  const auto divides = [](int64_t few, int64_t many) { return many % few == 0; };
  // Channels that share gates follow each other in a block, as many as leave a block for each multiprocessor.
  with_width(b.dtype, [&](auto zero) {
    using S = decltype(zero);
    for (int64_t channels = gates; channels >= 1; --channels) {
      if (!divides(channels, gates) || !(divides(channels, source) || divides(source, channels))) continue;
      const int64_t tasks = b.batch * b.channels / channels * b.directions;
      if (channels > 1 && tasks * 8 < limits.multiprocessors * 7) continue;
      divide(plan, b, limits, static_cast<int>(channels));
      if (place_backward<S>(plan, b, limits)) return;
    }
    plan.threads = 0;
  });
  reserve_carry(plan, b, limits);
  const int64_t state = state_bytes(b.dtype), planes = b.batch * b.channels * b.plane() * state;
  if (plan.split) plan.planes = reserve(plan, planes * b.directions);
  const bool running = b.directions > 1 && !plan.split && !plan.resident;
  if (running && state > value_bytes(b.dtype)) plan.planes = reserve(plan, planes);
  // What a block knows only a part of: the parts are added up afterwards.
  const int64_t parts = planes / plan.channels * b.directions;
  if (gates > plan.channels) plan.partial_gates = reserve(plan, parts * 3);
  if (source > plan.channels) plan.partial_source = reserve(plan, parts);
  return plan;
}

}  // namespace cuda
}  // namespace spn
