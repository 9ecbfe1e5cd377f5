// The forward kernel.
//
//   block   one plane (n, c), all its sweeps one after the other; or one sweep of it (plan.split)
//   warp w  positions 32 w .. 32 w + 31 of a line, then those 32 x warps further on
//   lane    one position: it follows the sweep from line to line
//
//                 positions  0        31 32       63 64       95
//   line t - 1    lines[0]  [  warp 0   |  warp 1   |  warp 2   ]    running state in shared memory
//                              | \ | / |                             three taps, across warps too
//   line t        lines[1]  [  warp 0   |  warp 1   |  warp 2   ]    one barrier, then the two change places
//
// Each warp stages L lines of its positions' gates, x and source in tiles of its own (tile.h), so only the state needs
// the block's barrier. A result replaces the x that it came from; a finished tile goes out in pieces of memory's rows.
#pragma once

#include "plan.h"
#include "result.h"

namespace spn {
namespace cuda {

// A sweep's planes, and where its checkpoints and results go.
template <typename S>
struct ForwardSweep {
  using T = StateOf<S>;
  Sweep sweep;
  const S* gates[3];
  const S* x;
  const S* source;
  T* checkpoints;
  Target<S> target;
};

template <typename S, bool kFits>
SPN_DEVICE void run_forward(const ForwardArgs& f, const Plan& plan, const ForwardSweep<S>& in, unsigned char* scratch) {
  using T = StateOf<S>;
  const Sweep& s = in.sweep;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  const int tiles = static_cast<int>((s.positions + kWarp - 1) / kWarp), lines = 1 << plan.lines_log2;
  const int arrays = in.source ? 5 : 4;
  T* state = reinterpret_cast<T*>(scratch);
  S* staged = reinterpret_cast<S*>(state + kForwardLines * plan.tiles * kWarp);
  const auto tile_at = [&](int stage, int array, int q) {
    return staged + (static_cast<int64_t>(stage * arrays + array) * plan.tiles + q) * (kWarp << plan.lines_log2);
  };
  const auto lines_from = [&](int64_t t0) { return static_cast<int>(s.lines - t0 < lines ? s.lines - t0 : lines); };

  const auto stage_in = [&](int64_t t0, int stage) {
    for (int q = warp; q < tiles; q += warps) {
      const Tile<S> tile(s, t0, lines_from(t0), int64_t{q} * kWarp, plan.lines_log2);
      for (int tap = 0; tap < 3; ++tap) copy_in<kFits>(tile_at(stage, tap, q), in.gates[tap], tile, plan.paired);
      if (plan.resident) {
        copy_in<false>(tile_at(stage, 3, q), in.x, tile, false);
      } else {
        copy_in<kFits>(tile_at(stage, 3, q), in.x, tile, plan.paired);
      }
      if (in.source) copy_in<kFits>(tile_at(stage, 4, q), in.source, tile, plan.paired);
    }
    copy_commit();
  };

  struct Values {
    Taps<T> p;
    T x, lambda;
  };
  const auto values_at = [&](const Tile<S>& tile, int stage, int q, int i, int64_t j) {
    const int k = tile.line(i);
    const auto value = [&](int array) { return static_cast<T>(load(tile_at(stage, array, q) + k)); };
    Values v{{value(0), value(1), value(2)}, value(3), in.source ? value(4) : T(0)};
    v.p = normalize_by(f.normalize, v.p, j > 0, j + 1 < s.positions);
    return v;
  };

  stage_in(0, 0);
  for (int64_t t0 = 0, round = 0; t0 < s.lines; t0 += lines, ++round) {
    const int count = lines_from(t0);
    const bool more = t0 + lines < s.lines;
    const int stage = plan.stages == 2 ? round & 1 : 0;
    if (plan.stages == 2 && more) {
      stage_in(t0 + lines, stage ^ 1);
      copy_wait<1>();
    } else {
      copy_wait<0>();
    }
    SPN_WARP_BARRIER(0);

    Values ahead{};
    const bool has_position = int64_t{warp} * kWarp + lane < s.positions;
    if (kFits && has_position) {
      const Tile<S> tile(s, t0, count, int64_t{warp} * kWarp, plan.lines_log2);
      ahead = values_at(tile, stage, warp, 0, int64_t{warp} * kWarp + lane);
    }
    for (int i = 0; i < count; ++i) {
      const int64_t t = t0 + i;
      T* now = state + (t & 1) * plan.tiles * kWarp;
      const T* before = state + (~t & 1) * plan.tiles * kWarp;
      for (int q = warp; q < tiles; q += warps) {
        const int64_t j = int64_t{q} * kWarp + lane;
        if (j < s.positions) {
          const Tile<S> tile(s, t0, count, int64_t{q} * kWarp, plan.lines_log2);
          const Values v = kFits ? ahead : values_at(tile, stage, q, i, j);
          const T h = t == 0 ? (in.source ? v.lambda * v.x : v.x)
                             : step_by(in.source != nullptr, v.x, v.lambda, v.p,
                                       taps_at(before, j, j > 0, j + 1 < s.positions));
          store(now + j, h);
          put_result(tile_at(stage, 3, q), tile_at(stage, 0, q), tile.line(i), h);
          const bool checkpoint = (t + 1) % kCheckpointLines == 0 && t + 1 < s.lines;
          if (in.checkpoints && checkpoint) store(in.checkpoints + t / kCheckpointLines * s.positions + j, h);
          // The next line's weights do not wait for this line: they are ready when the barrier opens.
          if (kFits && i + 1 < count) ahead = values_at(tile, stage, q, i + 1, j);
        }
        if (kFits) break;
      }
      SPN_BARRIER(0);
    }

    for (int q = warp; q < tiles; q += warps) {
      const Tile<S> tile(s, t0, count, int64_t{q} * kWarp, plan.lines_log2);
      in.target.merge(tile_at(stage, 3, q), tile_at(stage, 0, q), tile);
    }
    SPN_WARP_BARRIER(1);
    if (plan.stages == 1 && more) stage_in(t0 + lines, 0);
  }
}

template <typename S, bool kFits>
SPN_KERNEL(kMaxThreads) forward_kernel(ForwardArgs f, Plan plan) {
  using T = StateOf<S>;
  SPN_SHARED(shared);
  unsigned char* scratch = shared;
  if (!kFits && !plan.in_shared) scratch = plan.workspace + blockIdx.x * plan.scratch_bytes;
  const int64_t plane = f.plane(), channel_planes = f.batch * f.channels;
  const bool merges = f.directions > 1 && f.merge != Merge::none;
  // With plan.resident the end of scratch holds the running merge, and x.
  unsigned char* resident = scratch + plan.scratch_bytes - (plane + 7) / 8 * 8 * (sizeof(T) + sizeof(S));
  S* resident_x = reinterpret_cast<S*>(resident + (plane + 7) / 8 * 8 * sizeof(T));

  for (int64_t task = blockIdx.x; task < plan.tasks; task += gridDim.x) {
    const int64_t index = plan.split ? task / f.directions : task;  // of the plane (n, c)
    const int64_t n = index / f.channels, c = index % f.channels;
    const int first = plan.split ? static_cast<int>(task % f.directions) : 0;
    const int end = plan.split ? first + 1 : f.directions;
    const S* x = static_cast<const S*>(f.x) + index * plane;

    for (int d = first; d < end; ++d) {
      if (plan.resident && d == first) {
        for (int64_t o = threadIdx.x; o < plane; o += blockDim.x) store(resident_x + o, load(x + o));
      }
      SPN_BARRIER(1);  // x is there; the sweep before has left its merge

      ForwardSweep<S> in;
      in.sweep = f.sweep(d);
      for (int tap = 0; tap < 3; ++tap) {
        in.gates[tap] = static_cast<const S*>(f.gates) + f.gate_plane(n, d, tap, c) * plane;
      }
      in.x = plan.resident ? resident_x : x;
      in.source = f.source ? static_cast<const S*>(f.source) + f.source_plane(n, d, c) * plane : nullptr;
      in.checkpoints = nullptr;
      if (f.checkpoints) {
        in.checkpoints =
            static_cast<T*>(f.checkpoints) + index * f.checkpoint_offset(f.directions) + f.checkpoint_offset(d);
      }

      S* out = static_cast<S*>(f.out);
      T* planes = reinterpret_cast<T*>(plan.workspace + plan.planes);
      if (!merges) {
        in.target.narrow = out + (n * f.directions + d) * f.channels * plane + c * plane;
      } else if (plan.split) {
        in.target.wide = planes + (d * channel_planes + index) * plane;
      } else {
        T* running = planes + index * plane;
        if (plan.resident) {
          running = reinterpret_cast<T*>(resident);
        } else if constexpr (std::is_same_v<S, T>) {
          running = out + index * plane;
        }
        in.target.old = d > 0 ? running : nullptr;
        if (d + 1 < f.directions) {
          in.target.wide = running;
        } else {
          in.target.narrow = out + index * plane;
        }
        in.target.maximum = f.merge == Merge::max;
        in.target.scale = merge_scale<T>(f);
        in.target.winner = f.winner ? f.winner + index * plane : nullptr;
        in.target.direction = static_cast<uint8_t>(d);
      }
      run_forward<S, kFits>(f, plan, in, scratch);
    }
  }
}

}  // namespace cuda
}  // namespace spn
