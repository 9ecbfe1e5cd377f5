// Runs the kernels without torch under compute-sanitizer: small problems of every dtype, both passes, every kind of
// plan. It checks accesses, races and reads of unwritten memory. tests/spn/test_cuda.py compares the values.
//
//     sanitize [SECONDS]   starts no problem after this many seconds
//     sanitize --list      needs no GPU: lists the problems, and which properties each problem covers first
//
// The problems are ordered by how many new properties they cover, so that the first few cover nearly all.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "../../csrc/cuda/propagate.h"

namespace {

using spn::BackwardArgs;
using spn::DType;
using spn::ForwardArgs;
using spn::Merge;
using spn::Normalize;
using spn::Problem;
namespace cuda = spn::cuda;

// The limits that the planner uses. With slow memory, plans move the fewest bytes; with fast memory, they spread over
// the multiprocessors.
constexpr double kSlow = 0.01, kFast = 1e9;
cuda::Limits machine(int shared_kilobytes, int multiprocessors, int threads, double bytes_per_clock = kSlow) {
  cuda::Limits limits{};
  limits.shared_bytes = (int64_t{shared_kilobytes} << 10) - cuda::kHeaderBytes;
  limits.multiprocessors = multiprocessors;
  limits.threads = threads;
  limits.bytes_per_clock = bytes_per_clock;
  limits.launch_cycles = 0;
  limits.least_room = 300'000;  // so that small problems also sum their parts in chunks
  return limits;
}

// The requested gradients.
struct Wanted {
  bool x = true, gates = true, source = true;
};

struct Trial {
  Problem problem;
  cuda::Limits limits;
  bool save;  // for a backward pass, which then also runs
  Wanted wanted;
};

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Allocates exactly the requested bytes, so that an access beyond the end is outside the allocation.
class Memory {
 public:
  explicit Memory(bool real) : real_(real) {}
  ~Memory() {
    for (void* block : blocks_) cudaFree(block);
  }
  template <typename T = void>
  T* of(int64_t bytes, bool written) {
    if (!real_) return reinterpret_cast<T*>(uintptr_t{256});  // for plans, which depend on the alignment
    void* block = nullptr;
    check(cudaMalloc(&block, bytes > 0 ? bytes : 1), "cudaMalloc");
    blocks_.push_back(block);
    if (written) check(cudaMemset(block, 0x3c, bytes), "cudaMemset");  // about 1 in every dtype
    return static_cast<T*>(block);
  }

 private:
  bool real_;
  std::vector<void*> blocks_;
};

struct Passes {
  int64_t out_bytes, gate_bytes;
  ForwardArgs forward{};
  BackwardArgs backward{};
  cuda::Plan forward_plan, backward_plan{};

  Passes(const Trial& trial, Memory& memory) {
    const Problem& p = trial.problem;
    const int64_t value = cuda::value_bytes(p.dtype), state = cuda::state_bytes(p.dtype), plane = p.plane();
    const int64_t x_bytes = p.batch * p.channels * plane * value;
    const int64_t source_bytes = p.batch * p.directions * p.source_groups * plane * value;
    out_bytes = x_bytes * (p.merge == Merge::none ? p.directions : 1);
    gate_bytes = p.batch * p.directions * 3 * p.gate_groups * plane * value;

    ForwardArgs& f = forward;
    static_cast<Problem&>(f) = p;
    f.x = memory.of(x_bytes, true);
    f.gates = memory.of(gate_bytes, true);
    f.source = p.source_groups ? memory.of(source_bytes, true) : nullptr;
    f.out = memory.of(out_bytes, false);
    if (trial.save) {
      if (p.merge == Merge::max) f.winner = memory.of<uint8_t>(p.batch * p.channels * plane, false);
      f.checkpoints = memory.of(p.batch * p.channels * p.checkpoint_offset(p.directions) * state, false);
    }
    forward_plan = cuda::plan_forward(f, trial.limits);
    if (!trial.save) return;

    BackwardArgs& b = backward;
    static_cast<Problem&>(b) = p;
    b.grad = f.out;
    b.x = f.x;
    b.gates = f.gates;
    b.source = f.source;
    b.winner = f.winner;
    b.checkpoints = f.checkpoints;
    b.grad_x = trial.wanted.x ? memory.of(x_bytes, false) : nullptr;
    b.grad_gates = trial.wanted.gates ? memory.of(gate_bytes, false) : nullptr;
    b.grad_source = trial.wanted.source && p.source_groups ? memory.of(source_bytes, false) : nullptr;
    backward_plan = cuda::plan_backward(b, trial.limits);
  }

  // Returns whether shared memory is large enough.
  bool planned(const Trial& trial) const { return forward_plan.threads && (!trial.save || backward_plan.threads); }
};

void run(const Trial& trial) {
  Memory memory(true);
  const Passes p(trial, memory);
  check(cuda::forward(p.forward, p.forward_plan, memory.of(p.forward_plan.workspace_bytes, false), nullptr), "forward");
  if (trial.save) {
    void* workspace = memory.of(p.backward_plan.workspace_bytes, false);
    check(cuda::backward(p.backward, p.backward_plan, workspace, nullptr), "backward");
  }
  check(cudaDeviceSynchronize(), "synchronize");

  // initcheck reports values that no kernel wrote.
  std::vector<char> host(p.out_bytes + p.gate_bytes);
  check(cudaMemcpy(host.data(), p.forward.out, p.out_bytes, cudaMemcpyDeviceToHost), "copy");
  const void* grad = p.backward.grad_gates;
  if (grad) check(cudaMemcpy(host.data(), grad, p.gate_bytes, cudaMemcpyDeviceToHost), "copy");
}

using Names = std::set<std::string>;

void name_plan(Names& names, const char* pass, const Problem& p, const cuda::Plan& plan) {
  static const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};
  const auto add = [&](const char* what, int64_t value) {
    names.insert(std::string(pass) + " " + dtypes[static_cast<int>(p.dtype)] + " " + what + " " +
                 std::to_string(value));
  };
  int64_t longest = 0;
  for (int d = 0; d < p.directions; ++d) longest = std::max(longest, p.sweep(d).positions);
  add("piece", plan.piece);
  add("split", plan.split);
  add("several channels", plan.channels > 1);
  add("segments", plan.threads < longest);
  add(plan.merges_narrow ? "merged narrow, resident" : "resident", plan.resident);
  add(plan.resident ? "stages on chip" : "stages", plan.stages);
  add("carry", plan.carry_values == 0 ? 0 : plan.carry_in_shared ? 1 : 2);
  add("parts of gates", plan.partial_gates > 0);
  add("parts of source", plan.partial_source > 0);
  add("chunks", plan.chunks > 1);
  add("several tasks a block", plan.tasks > plan.blocks);
  add("source", p.source_groups > 0);
  add("merge", static_cast<int>(p.merge));
  add("normalize", static_cast<int>(p.normalize));
  add("directions", p.directions);
}

// Returns the properties of the trial's plans; none if it cannot be planned.
Names names_of(const Trial& trial) {
  Names names;
  Memory memory(false);
  const Passes passes(trial, memory);
  if (!passes.planned(trial)) return names;
  name_plan(names, "forward", trial.problem, passes.forward_plan);
  if (!trial.save) return names;
  const auto [x, gates, source] = trial.wanted;
  const std::string grads = std::string(x ? " x" : "") + (gates ? " gates" : "") + (source ? " source" : "");
  name_plan(names, ("backward of" + grads).c_str(), trial.problem, passes.backward_plan);
  return names;
}

std::vector<Trial> candidates() {
  std::vector<cuda::Limits> machines = {
      machine(99, 1, 1024),            // everything fits
      machine(99, 1, 64),              // segments
      machine(64, 1, 96),              // the smallest shared memory of a device
      machine(99, 1000, 1024, kFast),  // sweeps side by side
      machine(99, 8, 64, kFast),       // channels in parts
      machine(99, 16, 1024, kFast),    // parts in chunks
  };
  for (int kilobytes = 36; kilobytes < 96; kilobytes += 6) machines.push_back(machine(kilobytes, 1, 1024));
  struct Form {
    Merge merge;
    Normalize normalize;
    int directions, first;
    int64_t width, channels, gate_groups, source_groups;
    bool save;
    Wanted wanted = {};
  };
  const Form forms[] = {
      {Merge::max, Normalize::abs, 4, 0, 72, 4, 4, 0, true},       // separate gates for each channel
      {Merge::max, Normalize::abs, 4, 0, 72, 4, 4, 0, false},      // nothing is saved
      {Merge::none, Normalize::sigmoid, 4, 0, 35, 4, 1, 2, true},  // shared gates and source, rows of odd length
      {Merge::max, Normalize::unit, 4, 0, 70, 4, 1, 0, true},
      {Merge::sum, Normalize::none, 4, 0, 72, 4, 2, 4, true},
      {Merge::mean, Normalize::abs, 4, 0, 35, 2, 2, 1, true},
      {Merge::max, Normalize::abs, 4, 0, 72, 4, 1, 0, true, {true, false, false}},  // frozen gates, frozen x
      {Merge::max, Normalize::abs, 4, 0, 70, 4, 1, 2, true, {false, true, false}},
      {Merge::none, Normalize::abs, 1, 0, 72, 2, 2, 2, true},  // one direction
      {Merge::none, Normalize::sigmoid, 1, 3, 70, 4, 1, 0, true},
      {Merge::max, Normalize::abs, 4, 0, 1200, 1, 1, 0, true},    // lines too long for shared memory
      {Merge::max, Normalize::abs, 4, 0, 1200, 12, 12, 0, true},  // and more planes than blocks
  };
  std::vector<Trial> found;
  for (const cuda::Limits& limits : machines) {
    for (const Form& form : forms) {
      for (DType dtype : {DType::float32, DType::bfloat16, DType::float16, DType::float64}) {
        Problem p{};
        p.dtype = dtype;
        p.normalize = form.normalize;
        p.merge = form.merge;
        p.first_direction = form.first;
        p.directions = form.directions;
        p.batch = 1;
        p.channels = form.channels;
        p.height = form.width > 1000 ? 18 : 53;
        p.width = form.width;
        p.gate_groups = form.gate_groups;
        p.source_groups = form.source_groups;
        found.push_back({p, limits, form.save, form.wanted});
      }
    }
  }
  return found;
}

struct Chosen {
  Trial trial;
  Names first;  // properties that no earlier problem has
};

std::vector<Chosen> in_order_of_worth() {
  const std::vector<Trial> all = candidates();
  std::vector<Names> names;
  for (const Trial& trial : all) names.push_back(names_of(trial));
  std::vector<Chosen> order;
  Names seen;
  for (;;) {
    size_t best = 0;
    Names best_news;
    for (size_t i = 0; i < all.size(); ++i) {
      Names news;
      for (const std::string& name : names[i]) {
        if (!seen.count(name)) news.insert(name);
      }
      if (news.size() > best_news.size()) best = i, best_news = news;
    }
    if (best_news.empty()) break;
    seen.insert(best_news.begin(), best_news.end());
    order.push_back({all[best], best_news});
    names[best].clear();
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (!names[i].empty()) order.push_back({all[i], {}});
  }
  return order;
}

void print(size_t number, const Trial& trial) {
  static const char* const dtypes[] = {"float32", "float64", "float16", "bfloat16"};
  const Problem& p = trial.problem;
  std::printf(
      "%3zu: %s merge %d normalize %d from %d %d directions %dx%dx%dx%d gates %d source %d%s, machine %d %d %d\n",
      number, dtypes[static_cast<int>(p.dtype)], static_cast<int>(p.merge), static_cast<int>(p.normalize),
      p.first_direction, p.directions, static_cast<int>(p.batch), static_cast<int>(p.channels),
      static_cast<int>(p.height), static_cast<int>(p.width), static_cast<int>(p.gate_groups),
      static_cast<int>(p.source_groups), trial.save ? ", both passes" : "", static_cast<int>(trial.limits.shared_bytes),
      trial.limits.multiprocessors, trial.limits.threads);
  std::fflush(stdout);
}

}  // namespace

int main(int count, char** arguments) {
  const bool only_list = count > 1 && !std::strcmp(arguments[1], "--list");
  const double seconds = count > 1 && !only_list ? std::atof(arguments[1]) : 1e9;
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  int shared = 1 << 30;  // available to a block of this device
  if (!only_list) check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0), "shared memory");
  const std::vector<Chosen> order = in_order_of_worth();
  size_t ran = 0;
  for (const Chosen& chosen : order) {
    if (elapsed() > seconds) break;
    if (chosen.trial.limits.shared_bytes + cuda::kHeaderBytes > shared) continue;
    print(++ran, chosen.trial);
    if (!only_list) {
      run(chosen.trial);
      continue;
    }
    for (const std::string& name : chosen.first) std::printf("       %s\n", name.c_str());
  }
  std::printf("%zu of %zu problems %s in %.1f s\n", ran, order.size(), only_list ? "listed" : "ran", elapsed());
  return 0;
}
