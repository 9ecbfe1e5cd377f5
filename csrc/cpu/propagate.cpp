// The CPU operators: choose the instruction set, allocate the results and register with torch.
#include "propagate.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "../torch_args.h"
#include "scratch.h"
#include "tasks.h"

namespace spn {

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kScratchKept = size_t{32} << 20;

struct Buffer {
  void* data = nullptr;
  size_t bytes = 0;

  ~Buffer() { release(); }
  void release() {
    ::operator delete(data, std::align_val_t{kAlignment});
    data = nullptr;
    bytes = 0;
  }
  void* at_least(size_t wanted) {
    if (wanted > bytes) {
      release();
      data = ::operator new(wanted + 2 * kAlignment, std::align_val_t{kAlignment});
      bytes = wanted;
    }
    return static_cast<char*>(data) + kAlignment;
  }
};

thread_local Buffer thread_buffers[static_cast<int>(Slot::count)];

// SPN_CPU_CAPABILITY=baseline|avx2|avx512 selects a lower instruction set, for tests and measurements.
const CpuKernels& choose_kernels() {
  const char* wanted = std::getenv("SPN_CPU_CAPABILITY");
  [[maybe_unused]] const auto allows = [&](const char* capability) {
    return !wanted || std::string(wanted) == capability;
  };
#ifdef SPN_X86
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && allows("avx512")) return avx512::kernels;
  if (has_avx2 && (allows("avx2") || allows("avx512"))) return avx2::kernels;
#endif
  return baseline::kernels;
}

const CpuKernels& cpu_kernels() {
  static const CpuKernels& chosen = choose_kernels();
  return chosen;
}

// A newly allocated result of many megabytes causes one page fault per 4 KB, which takes longer than computing it. When
// asked in time, the system provides pages of 2 MB instead. A single thread requests them, because concurrent page
// faults delay each other. Memory that already has its pages is not affected.
void bring_pages(const Tensor& fresh) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kPage = 64 << 10, kWorthwhile = 4 << 20;  // a multiple of the page size of every system
  const uintptr_t bytes = static_cast<uintptr_t>(fresh.numel()) * fresh.element_size();
  if (bytes <= kWorthwhile) return;
  void* begin = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(fresh.mutable_data_ptr()) / kPage + 1) * kPage);
  madvise(begin, bytes - kPage, MADV_HUGEPAGE);
#ifdef MADV_POPULATE_WRITE
  madvise(begin, bytes - kPage, MADV_POPULATE_WRITE);
#endif
#endif
}

std::optional<Tensor> separate_planes(const Problem& p, int64_t tasks, const Tensor& like) {
  if (!wants_separate_sweeps(p, tasks, torch::stable::get_num_threads())) return std::nullopt;
  return torch::stable::new_empty(like, std::vector<int64_t>{p.directions, p.batch, p.channels, p.height, p.width},
                                  state_type(p.dtype));
}

std::tuple<Tensor, Tensor, Tensor> propagate(const Tensor x, const Tensor gates, const std::optional<Tensor> source,
                                             std::string direction, std::string normalize, std::string merge,
                                             bool save_winner, bool save_checkpoints, int64_t restart_every) {
  ForwardCall call(x, gates, source, direction, normalize, merge, save_winner, save_checkpoints, restart_every);
  if (!call.empty()) {
    std::optional<Tensor> separate;
    if (call.args.merge != Merge::none)
      separate = separate_planes(call.args, cpu_kernels().forward_tasks(call.args), call.x);
    for (const Tensor& fresh : {call.out, call.winner, call.checkpoints}) bring_pages(fresh);
    cpu_kernels().forward(call.args, separate ? separate->mutable_data_ptr() : nullptr);
  }
  return call.results();
}

std::tuple<Tensor, Tensor, Tensor> propagate_backward(const Tensor grad, const Tensor x, const Tensor gates,
                                                      const std::optional<Tensor> source, const Tensor winner,
                                                      const Tensor checkpoints, std::string direction,
                                                      std::string normalize, std::string merge, bool for_x,
                                                      bool for_gates, bool for_source, int64_t restart_every) {
  BackwardCall call(grad, x, gates, source, winner, checkpoints, direction, normalize, merge, for_x, for_gates,
                    for_source, restart_every);
  if (!call.empty()) {
    std::optional<Tensor> separate;
    if (for_x) separate = separate_planes(call.args, cpu_kernels().backward_tasks(call.args), call.x);
    for (const Tensor& fresh : {call.grad_x, call.grad_gates, call.grad_source}) bring_pages(fresh);
    cpu_kernels().backward(call.args, separate ? separate->mutable_data_ptr() : nullptr);
  }
  return call.results();
}

std::string cpu_capability() {
  return cpu_kernels().capability;
}

}  // namespace

void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  torch::stable::parallel_for(0, count, grain, body);
}

void* scratch_bytes(Slot slot, size_t bytes) {
  return thread_buffers[static_cast<int>(slot)].at_least(bytes);
}

void release_large_scratch() {
  for (Buffer& buffer : thread_buffers) {
    if (buffer.bytes > kScratchKept) buffer.release();
  }
}

}  // namespace spn

STABLE_TORCH_LIBRARY_IMPL(spn, CPU, m) {
  m.impl("propagate", TORCH_BOX(&spn::propagate));
  m.impl("propagate_backward", TORCH_BOX(&spn::propagate_backward));
}

STABLE_TORCH_LIBRARY_IMPL(spn, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&spn::cpu_capability));
}
