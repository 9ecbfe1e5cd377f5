#include "emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <random>
#include <set>
#include <unordered_map>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define SPN_FIBER_SANITIZER 1
#endif

namespace spn {
namespace emulator {

namespace {

constexpr int kWarp = 32;
constexpr size_t kStack = 256 << 10;
constexpr unsigned char kPoison = 0xFF;  // NaN in every dtype

enum class Wait { none, block, warp, done };

struct Copy {
  void* shared;
  const void* global;
  size_t bytes;
  Site site;
};

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Wait wait = Wait::none;
  std::string waits_at;
  uint32_t block_epoch = 0, warp_epoch = 0;  // barriers passed
  std::vector<std::vector<Copy>> copies;     // committed groups, and the open one
  uint64_t turn = 0;
  std::unordered_map<uint64_t, uint32_t> occurrences;
#ifdef SPN_FIBER_SANITIZER
  void* fake_stack = nullptr;
#endif
};

// A thread's access, as far as it orders against others.
struct Access {
  int32_t block = -1, thread = -1;  // thread kMany: several of a warp
  uint32_t block_epoch = 0, warp_epoch = 0;
};
constexpr int kMany = -2;

struct Shadow {
  Access write, read, read_of_another_warp;
  bool written = false;
};

struct Buffer {
  std::string name;
  uintptr_t begin, end;
  bool written, writable;
  std::vector<Shadow> shadow;
};

struct Machine {
  Options options;
  Counts counts;
  std::string error;
  std::vector<Buffer> buffers;
  std::set<std::string> barriers;

  std::vector<unsigned char> shared;
  std::vector<Shadow> shared_shadow;
  std::vector<Fiber> fibers;
  std::function<void()> kernel;
  ucontext_t scheduler;
  int threads = 0, current = -1;
  int64_t block = 0, blocks = 0;
  std::mt19937_64 random;

  // One access of a warp: everything its threads touched at one place, in one turn.
  struct WarpAccess {
    bool write, shared;
    std::vector<uint64_t> units;
  };
  std::vector<std::unordered_map<uint64_t, WarpAccess>> warp_accesses;
#ifdef SPN_FIBER_SANITIZER
  const void* main_stack = nullptr;
  size_t main_stack_bytes = 0;
#endif
};

Machine machine;

Fiber& fiber() {
  return machine.fibers[machine.current];
}

std::string where(Site site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

void yield() {
  Fiber& f = fiber();
#ifdef SPN_FIBER_SANITIZER
  __sanitizer_start_switch_fiber(f.wait == Wait::done ? nullptr : &f.fake_stack, machine.main_stack,
                                 machine.main_stack_bytes);
#endif
  swapcontext(&f.context, &machine.scheduler);
#ifdef SPN_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(f.fake_stack, &machine.main_stack, &machine.main_stack_bytes);
#endif
}

// Remembers the first fault, and stops the thread where it is: what it would do next means nothing.
void fail(const std::string& what) {
  if (machine.error.empty()) {
    machine.error =
        what + " (block " + std::to_string(machine.block) + ", thread " + std::to_string(machine.current) + ")";
  }
  if (machine.current < 0) return;
  fiber().wait = Wait::done;
  yield();
}

void resume(int thread) {
  machine.current = thread;
  Fiber& f = machine.fibers[thread];
#ifdef SPN_FIBER_SANITIZER
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, f.stack.get(), kStack);
#endif
  swapcontext(&machine.scheduler, &f.context);
#ifdef SPN_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void fiber_main() {
#ifdef SPN_FIBER_SANITIZER
  __sanitizer_finish_switch_fiber(nullptr, &machine.main_stack, &machine.main_stack_bytes);
#endif
  machine.kernel();
  if (!fiber().copies.back().empty() || fiber().copies.size() > 1) fail("a copy was never waited for");
  fiber().wait = Wait::done;
  yield();
}

std::string barrier_name(const char* file, char kind, int number) {
  const std::string path = file;
  return path.substr(path.find_last_of('/') + 1) + ":" + kind + std::to_string(number);
}

// Whether `earlier` and an access of the running thread may happen in either order.
bool unordered(const Access& earlier, bool same_space) {
  if (earlier.block < 0) return false;
  if (earlier.block != machine.block) return !same_space;
  if (earlier.thread == machine.current) return false;
  if (earlier.block_epoch < fiber().block_epoch) return false;
  const int warp = earlier.thread <= kMany ? -(earlier.thread - kMany) : earlier.thread / kWarp;
  return warp != machine.current / kWarp || earlier.warp_epoch >= fiber().warp_epoch;
}

Access now() {
  return {static_cast<int32_t>(machine.block), machine.current, fiber().block_epoch, fiber().warp_epoch};
}

int warp_of(const Access& a) {
  return a.thread <= kMany ? -(a.thread - kMany) : a.thread / kWarp;
}

void remember_read(Shadow& s) {
  const Access access = now();
  if (s.read.block == access.block && s.read.block_epoch == access.block_epoch) {
    if (warp_of(s.read) != warp_of(access)) {
      s.read_of_another_warp = s.read;
    } else if (s.read.warp_epoch == access.warp_epoch && s.read.thread != access.thread) {
      s.read = access;
      s.read.thread = kMany - warp_of(access);
      return;
    }
  }
  s.read = access;
}

void check_byte(Shadow& s, bool write, bool is_shared, const std::string& name, Site site) {
  if (write) {
    if (unordered(s.write, is_shared)) fail("race: two writes to " + name + " at " + where(site));
    if (unordered(s.read, is_shared) || unordered(s.read_of_another_warp, is_shared)) {
      fail("race: a write after a read of " + name + " at " + where(site));
    }
    s.write = now();
    s.written = true;
  } else {
    if (!s.written) fail("read of " + name + " that nothing wrote, at " + where(site));
    if (unordered(s.write, is_shared)) fail("race: a read after a write of " + name + " at " + where(site));
    remember_read(s);
  }
}

bool in_shared(uintptr_t address) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(machine.shared.data());
  return address >= begin && address < begin + machine.shared.size();
}

uint64_t site_key(Site site) {
  return std::hash<const void*>()(site.file) * 31 + static_cast<uint64_t>(site.line);
}

void count_access(uintptr_t address, size_t bytes, bool write, Site site) {
  const bool shared = in_shared(address);
  Counts& c = machine.counts;
  if (!shared) (write ? c.bytes_written : c.bytes_read) += static_cast<int64_t>(bytes);
  // `what` names the instruction, `occurrence` how often this thread has come by it in this turn.
  const uint64_t what = (site_key(site) * 4 + write * 2 + shared) * 0x9E3779B97F4A7C15ull ^ fiber().turn;
  const uint64_t key = what * 0x9E3779B97F4A7C15ull ^ fiber().occurrences[what]++;
  auto& access = machine.warp_accesses[machine.current / kWarp][key];
  access.write = write;
  access.shared = shared;
  if (shared) {
    const uintptr_t offset = address - reinterpret_cast<uintptr_t>(machine.shared.data());
    for (uintptr_t word = offset / 4; word <= (offset + bytes - 1) / 4; ++word) access.units.push_back(word);
  } else {
    for (uintptr_t sector = address / 32; sector <= (address + bytes - 1) / 32; ++sector)
      access.units.push_back(sector);
  }
}

void close_counts() {
  Counts& c = machine.counts;
  for (auto& warp : machine.warp_accesses) {
    for (auto& [key, access] : warp) {
      auto& units = access.units;
      std::sort(units.begin(), units.end());
      units.erase(std::unique(units.begin(), units.end()), units.end());
      if (!access.shared) {
        (access.write ? c.sectors_written : c.sectors_read) += static_cast<int64_t>(units.size());
        continue;
      }
      int banks[32] = {};
      for (uint64_t word : units) ++banks[word % 32];
      ++c.shared_accesses;
      c.shared_passes += *std::max_element(banks, banks + 32);
    }
    warp.clear();
  }
  for (Fiber& f : machine.fibers) f.occurrences.clear();
}

void touch(const void* pointer, size_t bytes, bool write, Site site) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  if (bytes <= 8 && address % bytes) fail("misaligned access at " + where(site));
  if (machine.options.count) count_access(address, bytes, write, site);
  if (!machine.options.check) return;
  if (in_shared(address)) {
    const uintptr_t offset = address - reinterpret_cast<uintptr_t>(machine.shared.data());
    if (offset + bytes > machine.shared.size()) return fail("shared memory is left at " + where(site));
    for (size_t i = 0; i < bytes; ++i)
      check_byte(machine.shared_shadow[offset + i], write, true, "shared memory", site);
    return;
  }
  for (Buffer& buffer : machine.buffers) {
    if (address < buffer.begin || address + bytes > buffer.end) continue;
    if (!buffer.writable) {
      if (write) fail("write to " + buffer.name + " at " + where(site));
      return;
    }
    for (size_t i = 0; i < bytes; ++i) {
      check_byte(buffer.shadow[address - buffer.begin + i], write, false, buffer.name, site);
    }
    return;
  }
  fail("access outside every array at " + where(site));
}

void run_block() {
  const int threads = machine.threads;
  for (int thread = 0; thread < threads; ++thread) {
    Fiber& f = machine.fibers[thread];
    if (!f.stack) f.stack.reset(new char[kStack]);
    f.wait = Wait::none;
    f.block_epoch = f.warp_epoch = 0;
    f.copies.assign(1, {});
    f.turn = 0;
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack.get();
    f.context.uc_stack.ss_size = kStack;
    f.context.uc_link = nullptr;
    makecontext(&f.context, fiber_main, 0);
  }
  std::vector<int> order(threads);
  for (int i = 0; i < threads; ++i) order[i] = i;

  for (;;) {
    // Warps in any order, threads within them too.
    std::shuffle(order.begin(), order.end(), machine.random);
    bool ran = false;
    for (int thread : order) {
      if (machine.fibers[thread].wait != Wait::none) continue;
      ran = true;
      resume(thread);
      if (!machine.error.empty()) return;
    }
    if (ran) continue;
    bool released = false;
    for (int warp = 0; warp * kWarp < threads; ++warp) {
      bool all = true, any = false;
      const int end = std::min(threads, (warp + 1) * kWarp);
      for (int t = warp * kWarp; t < end; ++t) {
        all = all && machine.fibers[t].wait == Wait::warp &&
              machine.fibers[t].waits_at == machine.fibers[warp * kWarp].waits_at;
        any = any || machine.fibers[t].wait == Wait::warp;
      }
      if (!all) continue;
      for (int t = warp * kWarp; t < end; ++t) {
        machine.fibers[t].wait = Wait::none;
        ++machine.fibers[t].warp_epoch;
      }
      ++machine.counts.warp_barriers;
      released = true;
    }
    if (released) continue;
    int done = 0, waiting = 0;
    bool same = true;
    for (int t = 0; t < threads; ++t) {
      done += machine.fibers[t].wait == Wait::done;
      waiting += machine.fibers[t].wait == Wait::block;
      same = same && machine.fibers[t].waits_at == machine.fibers[0].waits_at;
    }
    if (done == threads) break;
    machine.current = -1;
    if (waiting != threads || !same) {
      fail("threads wait at different barriers");
      break;
    }
    for (int t = 0; t < threads; ++t) {
      Fiber& f = machine.fibers[t];
      f.wait = Wait::none;
      ++f.block_epoch;
      ++f.warp_epoch;
    }
    ++machine.counts.block_barriers;
  }
}

}  // namespace

Index thread_index() {
  return {static_cast<unsigned>(machine.current)};
}
Index block_index() {
  return {static_cast<unsigned>(machine.block)};
}
Index block_size() {
  return {static_cast<unsigned>(machine.threads)};
}
Index grid_size() {
  return {static_cast<unsigned>(machine.blocks)};
}
unsigned char* shared_memory() {
  return machine.shared.data();
}

void wait_at(const char* file, char kind, int number) {
  const std::string name = barrier_name(file, kind, number);
  machine.barriers.insert(name);
  if (name != machine.options.without_barrier) {
    fiber().wait = kind == 'B' ? Wait::block : Wait::warp;
    fiber().waits_at = name;
  }
  yield();
}

void block_barrier(const char* file, int number) {
  wait_at(file, 'B', number);
}
void warp_barrier(const char* file, int number) {
  wait_at(file, 'W', number);
}

void on_read(const void* address, size_t bytes, Site site) {
  touch(address, bytes, false, site);
}
void on_write(const void* address, size_t bytes, Site site) {
  touch(address, bytes, true, site);
}
void on_turn() {
  ++fiber().turn;
}

// The copy happens at some time before the wait ends: the destination is spoilt now and written then.
void copy_async(void* shared, const void* global, size_t bytes, Site site) {
  touch(global, bytes, false, site);
  touch(shared, bytes, true, site);
  if (!in_shared(reinterpret_cast<uintptr_t>(shared))) return fail("an asynchronous copy must go to shared memory");
  std::memset(shared, kPoison, bytes);
  fiber().copies.back().push_back({shared, global, bytes, site});
}

void copy_commit() {
  fiber().copies.emplace_back();
}

void copy_wait(int pending) {
  auto& copies = fiber().copies;
  while (static_cast<int>(copies.size()) - 1 > pending) {
    for (const Copy& copy : copies.front()) {
      if (machine.options.check) {
        const uintptr_t offset =
            reinterpret_cast<uintptr_t>(copy.shared) - reinterpret_cast<uintptr_t>(machine.shared.data());
        for (size_t i = 0; i < copy.bytes; ++i) {
          check_byte(machine.shared_shadow[offset + i], true, true, "shared memory", copy.site);
        }
      }
      std::memcpy(copy.shared, copy.global, copy.bytes);
    }
    copies.erase(copies.begin());
  }
}

cudaError_t run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  machine.kernel = kernel;
  machine.blocks = blocks;
  machine.threads = threads;
  if (static_cast<int>(machine.fibers.size()) < threads) machine.fibers.resize(threads);
  machine.warp_accesses.resize((threads + kWarp - 1) / kWarp);
  for (Buffer& buffer : machine.buffers) {
    for (Shadow& s : buffer.shadow) s.write = s.read = s.read_of_another_warp = Access{};
  }
  ++machine.counts.launches;
  machine.counts.blocks += blocks;
  std::vector<int64_t> order(blocks);
  for (int64_t i = 0; i < blocks; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), machine.random);
  for (int64_t block : order) {
    machine.block = block;
    machine.shared.assign(shared_bytes, kPoison);
    if (machine.options.check) machine.shared_shadow.assign(shared_bytes, Shadow{});
    run_block();
    if (machine.options.count) close_counts();
    if (!machine.error.empty()) return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

void add_buffer(const char* name, const void* data, size_t bytes, bool written, bool writable) {
  Buffer buffer{name, reinterpret_cast<uintptr_t>(data), reinterpret_cast<uintptr_t>(data) + bytes, written, writable,
                {}};
  if (machine.options.check && writable) {
    buffer.shadow.resize(bytes);
    for (Shadow& s : buffer.shadow) s.written = written;
  }
  machine.buffers.push_back(std::move(buffer));
}

void reset(const Options& options) {
  machine.options = options;
  machine.counts = Counts{};
  machine.error.clear();
  machine.buffers.clear();
  machine.barriers.clear();
  machine.random.seed(options.seed);
}

const Counts& counts() {
  return machine.counts;
}
const std::string& error() {
  return machine.error;
}

std::string unwritten() {
  std::string names;
  for (const Buffer& buffer : machine.buffers) {
    if (buffer.name == "workspace") continue;
    for (const Shadow& s : buffer.shadow) {
      if (s.written) continue;
      names += buffer.name + " ";
      break;
    }
  }
  return names;
}

std::vector<std::string> barriers_seen() {
  return {machine.barriers.begin(), machine.barriers.end()};
}

}  // namespace emulator
}  // namespace spn
