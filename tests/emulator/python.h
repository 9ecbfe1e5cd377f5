// Conversions between Python and the planner: a problem, the limits of a device, a plan and its predicted cost.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "../../csrc/cuda/propagate.h"

namespace spn {

inline Problem problem_of(const pybind11::dict& d) {
  Problem p;
  p.dtype = static_cast<DType>(d["dtype"].cast<int>());
  p.normalize = static_cast<Normalize>(d["normalize"].cast<int>());
  p.merge = static_cast<Merge>(d["merge"].cast<int>());
  p.first_direction = d["first_direction"].cast<int>();
  p.directions = d["directions"].cast<int>();
  p.batch = d["batch"].cast<int64_t>();
  p.channels = d["channels"].cast<int64_t>();
  p.height = d["height"].cast<int64_t>();
  p.width = d["width"].cast<int64_t>();
  p.gate_groups = d["gate_groups"].cast<int64_t>();
  p.source_groups = d["source_groups"].cast<int64_t>();
  p.restart_every = d["restart_every"].cast<int64_t>();
  return p;
}

inline cuda::Limits limits_of(const pybind11::dict& d) {
  cuda::Limits limits;
  limits.shared_bytes = d["shared_bytes"].cast<int64_t>();
  limits.multiprocessors = d["multiprocessors"].cast<int>();
  limits.threads = d["threads"].cast<int>();
  limits.shared_of_multiprocessor = d["shared_of_multiprocessor"].cast<int64_t>();
  limits.shared_reserved = d["shared_reserved"].cast<int64_t>();
  limits.bytes_per_clock = d["bytes_per_clock"].cast<double>();
  limits.launch_cycles = d["launch_cycles"].cast<double>();
  limits.blocks = d["blocks"].cast<int64_t>();
  limits.least_room = d["least_room"].cast<int64_t>();
  return limits;
}

inline void describe(const cuda::Choice& choice, pybind11::dict& d) {
  const auto& [plan, cost, beyond] = choice;
  d["threads"] = plan.threads;
  d["stages"] = plan.stages;
  d["piece"] = plan.piece;
  d["channels"] = plan.channels;
  d["carry_values"] = plan.carry_values;
  d["carry_in_shared"] = plan.carry_in_shared;
  d["chunks"] = plan.chunks;
  d["split"] = plan.split;
  d["runs"] = plan.runs;
  d["resident"] = plan.resident;
  d["merges_narrow"] = plan.merges_narrow;
  d["scratch_bytes"] = plan.scratch_bytes;
  d["workspace_bytes"] = plan.workspace_bytes;
  d["tasks"] = plan.tasks;
  d["bytes"] = cost.bytes;
  d["together"] = cost.together;
  d["rounds"] = cost.rounds;
  d["memory_cycles"] = cost.memory;
  d["computing_cycles"] = cost.computing;
  d["cycles"] = cost.cycles;
  d["beyond_bound"] = beyond;
}

}  // namespace spn
