// The plan of the backward pass (host code).
#pragma once

#include "backward_memory.h"
#include "cost.h"
#include "parts.h"

namespace spn {
namespace cuda {

inline int64_t sharing_gates(const Problem& p) {
  return p.channels / p.gate_groups;
}
inline int64_t sharing_source(const Problem& p) {
  return p.source_groups ? p.channels / p.source_groups : 1;
}

// Number of partial gradients of gates or source that blocks leave for each plane. It is 1 if they leave the gradient
// itself.
inline int64_t parts_of_gates(const BackwardArgs& b, const Plan& plan) {
  return b.grad_gates ? std::max<int64_t>(1, sharing_gates(b) / plan.channels) : 1;
}
inline int64_t parts_of_source(const BackwardArgs& b, const Plan& plan) {
  return b.grad_source ? std::max<int64_t>(1, sharing_source(b) / plan.channels) : 1;
}

inline Moved backward_moves(const BackwardArgs& b, const Plan& plan) {
  const int64_t value = value_bytes(b.dtype), state = state_bytes(b.dtype);
  const int64_t planes = b.batch * b.channels * b.plane(), sweeps = b.directions;
  const auto once_or_each = [&](int on_chip) { return plan.resident > on_chip ? 1 : sweeps; };
  using Memory = BackwardMemory<float>;  // the set of resident planes is the same for every dtype
  const int64_t maps = sweeps * planes;  // values of one tap's gates, or of source, if channels did not share them
  Moved moved{};
  // Arrays that channels share are read once per block. Their gradients are written once for all channels, or in parts.
  const auto shared = [&](int64_t arrays, int64_t sharing, bool wanted, int64_t parts) {
    const int64_t run = std::min<int64_t>(sharing, plan.channels);
    moved.bytes += arrays * maps * value / run;
    if (!wanted) return;
    const int64_t grads = arrays * maps * value / sharing;
    if (parts == 1) {
      moved.bytes += grads;
      return;
    }
    const int64_t partial = arrays * maps * state / run;
    moved.bytes += partial;
    moved.after += partial + grads;
    moved.launches_after += plan.chunks;
  };
  shared(3, sharing_gates(b), b.grad_gates, parts_of_gates(b, plan));
  if (b.source_groups) shared(1, sharing_source(b), b.grad_source, parts_of_source(b, plan));
  moved.launches_after += plan.chunks - 1;
  if (b.reads_x()) moved.bytes += value * planes * once_or_each(Memory::kept_x);
  if (b.merge == Merge::max) moved.bytes += planes * once_or_each(Memory::kept_winner);
  moved.bytes += value * planes * (b.merge == Merge::none ? sweeps : once_or_each(Memory::kept_grad));
  if (b.reads_hidden()) moved.bytes += b.batch * b.channels * b.checkpoint_offset(b.directions) * state;
  if (!b.grad_x) return moved;
  if (plan.split) {
    moved.bytes += sweeps * state * planes;
    moved.after += sweeps * state * planes + value * planes;
    ++moved.launches_after;
  } else {
    moved.bytes += value * planes + (plan.resident ? 0 : 2 * (sweeps - 1) * state * planes);
  }
  return moved;
}

// Bytes that partial sums may take: as many as x in the dtype of the hidden state, but at least limits.least_room.
inline int64_t room_for_parts(const Problem& p, const Limits& limits) {
  return std::max(limits.least_room, p.batch * p.channels * p.plane() * state_bytes(p.dtype));
}

// Bytes of all partial sums over channels, for the gradients of gates, source or both.
inline int64_t part_bytes(const Problem& p, const Plan& plan, bool gates, bool source) {
  const int64_t arrays = (gates ? 3 : 0) + (source ? 1 : 0);
  return p.batch * p.channels / plan.channels * p.directions * arrays * part_values(p, plan.chunks) *
         state_bytes(p.dtype);
}

// Return the smallest number of chunks for which the partial sums fit in their memory. A block can stop and continue in
// the next launch only if its only task is a single sweep.
inline int chunks_for(const Problem& p, Plan plan, const Limits& limits, bool gates, bool source) {
  if ((p.directions > 1 && !plan.split) || plan.tasks > limits.blocks) return 1;
  const int64_t room = room_for_parts(p, limits);
  int64_t most = std::numeric_limits<int>::max();
  for (int d = 0; d < p.directions; ++d) most = std::min(most, tile_count(p.sweep(d).lines));
  plan.chunks = 1;
  const int64_t wanted = part_bytes(p, plan, gates, source) / room;
  plan.chunks = static_cast<int>(std::min(most, std::max<int64_t>(1, wanted)));
  while (plan.chunks < most && part_bytes(p, plan, gates, source) > room) ++plan.chunks;
  return plan.chunks;
}

// Number of maps shaped like x, in the dtype of the hidden state, that sweeps pass to each other or to the kernel that
// adds them up.
inline int64_t maps_of_sums(const BackwardArgs& b, const Plan& plan) {
  if (!b.grad_x) return 0;
  if (plan.split) return b.directions;
  const bool running = b.directions > 1 && !plan.resident;
  return running && state_bytes(b.dtype) > value_bytes(b.dtype) ? 1 : 0;
}

// Return a plan within `limits`, or an empty plan if it does not fit.
template <typename S>
Plan place_backward(const BackwardArgs& b, const Limits& limits, int channels, bool split, int runs, int resident,
                    int stages) {
  using Memory = BackwardMemory<S>;
  Plan plan{};
  plan.resident = resident;
  plan.piece = piece_of(b, {b.grad, b.x, b.gates, b.source, b.winner, b.grad_x, b.grad_gates, b.grad_source});
  plan.resident_pitch = static_cast<int>(resident_pitch(b, plan.piece));
  divide(plan, b, limits, channels, split, runs);
  const bool gates = parts_of_gates(b, plan) > 1, source = parts_of_source(b, plan) > 1;
  plan.chunks = gates || source ? chunks_for(b, plan, limits, gates, source) : 1;
  if (plan.chunks > 1 && runs > 1) return {};  // chunks and runs cannot be combined
  const bool placed =
      place(plan, b, limits, stages, Memory::thread_bytes(b, channels, stages, resident), Memory::fixed_bytes(b, plan));
  // Resident planes are walked in whole lines.
  if (!placed || (resident && plan.threads < std::max(b.height, b.width))) return {};
  reserve_carry(plan, b, limits);
  const int64_t state = state_bytes(b.dtype), planes = b.batch * b.channels * b.plane() * state;
  if (const int64_t maps = maps_of_sums(b, plan)) plan.planes = reserve(plan, planes * maps);
  if (gates) plan.partial_gates = reserve(plan, part_bytes(b, plan, true, false));
  if (source) plan.partial_source = reserve(plan, part_bytes(b, plan, false, true));
  return plan;
}

// Upper bound for the bytes of the workspace: maps of sums, carried lines, and the memory allowed for partial sums.
inline int64_t workspace_bound(const BackwardArgs& b, const Plan& plan, const Limits& limits) {
  const int64_t planes = b.batch * b.channels * b.plane() * state_bytes(b.dtype);
  const int64_t carry = plan.carry_in_shared ? 0 : plan.blocks * plan.carry_values * state_bytes(b.dtype);
  return planes * maps_of_sums(b, plan) + carry + room_for_parts(b, limits) + 1024;
}

// Call visit(channels) for each number of channels that a block can process one after another. These channels share
// gates.
template <typename Visit>
void for_channels(const Problem& p, Visit visit) {
  const int64_t gates = sharing_gates(p), source = sharing_source(p);
  const auto offer = [&](int64_t channels) {
    const bool fits = channels % source == 0 || source % channels == 0;
    if (fits && channels <= std::numeric_limits<int>::max()) visit(static_cast<int>(channels));
  };
  for (int64_t few = 1; few * few <= gates; ++few) {
    if (gates % few != 0) continue;
    offer(gates / few);
    if (few * few != gates) offer(few);
  }
}

// Return the best plan whose blocks process `wanted` channels. 0 allows any number.
inline Choice choose_with_channels(const BackwardArgs& b, const Limits& limits, int wanted) {
  Choice best;
  with_width(b.dtype, [&](auto zero) {
    using S = decltype(zero);
    for_channels(b, [&](int channels) {
      if (wanted && channels != wanted) return;
      for_plans<S>(b, limits, channels, BackwardMemory<S>::kept_all,
                   [&](const Limits& share, bool split, int runs, int kept, int stages) {
                     const Plan plan = place_backward<S>(b, share, channels, split, runs, kept, stages);
                     if (!plan.threads) return;
                     const Pass pass = kept ? Pass::backward_on_chip : Pass::backward;
                     const Cost cost = cost_of(b, plan, limits, pass, backward_moves(b, plan));
                     best.offer(plan, cost, workspace_bound(b, plan, limits));
                   });
    });
  });
  return best;
}

// The number of channels per block determines how sums over channels are rounded. It is chosen as if all gradients were
// requested, so that requesting fewer gradients does not change their values.
inline Choice choose_backward(const BackwardArgs& b, const Limits& limits) {
  const bool gates = b.grad_gates && sharing_gates(b) > 1, source = b.grad_source && sharing_source(b) > 1;
  if (!gates && !source) return choose_with_channels(b, limits, 0);
  const auto or_allocated = [](void* grad) { return grad ? grad : reinterpret_cast<void*>(uintptr_t{256}); };
  BackwardArgs all = b;
  all.grad_x = or_allocated(b.grad_x);
  all.grad_gates = or_allocated(b.grad_gates);
  if (b.source_groups) all.grad_source = or_allocated(b.grad_source);
  const Choice choice = choose_with_channels(all, limits, 0);
  const bool is_all = all.grad_x == b.grad_x && all.grad_gates == b.grad_gates && all.grad_source == b.grad_source;
  return is_all ? choice : choose_with_channels(b, limits, choice.plan.channels);
}

inline Plan plan_backward(const BackwardArgs& b, const Limits& limits) {
  return choose_backward(b, limits).plan;
}

}  // namespace cuda
}  // namespace spn
