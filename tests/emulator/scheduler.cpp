// Runs blocks, the warps of a block and the threads of a warp in random order, until all threads wait or are done.
#include <algorithm>

#include "machine.h"

namespace spn {
namespace emulator {

Machine machine;

namespace {

void thread_main() {
  Fiber::entered();
  machine.kernel();
  Thread& thread = machine.thread();
  if (!thread.copies.back().empty() || thread.copies.size() > 1) fail("a copy was never waited for");
  thread.wait = Wait::done;
  thread.fiber.yield(true);
}

void start_threads() {
  for (int i = 0; i < machine.threads; ++i) {
    Thread& thread = machine.threads_of_block[i];
    thread.wait = Wait::none;
    thread.block_epoch = thread.warp_epoch = 0;
    thread.copies.assign(1, {});
    thread.turn = 0;
    thread.fiber.start(thread_main);
  }
}

// Runs every thread that is not waiting once; returns whether there was one.
bool run_threads(const std::vector<int>& order) {
  bool ran = false;
  for (int i : order) {
    if (machine.threads_of_block[i].wait != Wait::none) continue;
    ran = true;
    machine.current = i;
    machine.threads_of_block[i].fiber.resume();
    if (!machine.error.empty()) break;
  }
  return ran;
}

// Returns whether threads begin .. end - 1 all wait for `wait` at the same place.
bool all_wait(int begin, int end, Wait wait) {
  const auto& threads = machine.threads_of_block;
  return std::all_of(threads.begin() + begin, threads.begin() + end, [&](const Thread& t) {
    return t.wait == wait && (wait == Wait::done || t.waits_at == threads[begin].waits_at);
  });
}

void release(int begin, int end, bool block) {
  for (int i = begin; i < end; ++i) {
    Thread& thread = machine.threads_of_block[i];
    thread.wait = Wait::none;
    ++thread.warp_epoch;
    if (block) ++thread.block_epoch;
  }
}

bool release_warps() {
  bool released = false;
  for (int begin = 0; begin < machine.threads; begin += kWarp) {
    const int end = std::min(machine.threads, begin + kWarp);
    if (!all_wait(begin, end, Wait::warp)) continue;
    release(begin, end, false);
    ++machine.counts.warp_barriers;
    released = true;
  }
  return released;
}

void run_block() {
  start_threads();
  std::vector<int> order(machine.threads);
  for (int i = 0; i < machine.threads; ++i) order[i] = i;
  for (;;) {
    std::shuffle(order.begin(), order.end(), machine.random);
    const bool ran = run_threads(order);
    if (!machine.error.empty()) return;
    if (ran || release_warps()) continue;
    if (all_wait(0, machine.threads, Wait::done)) return;
    machine.current = -1;
    if (!all_wait(0, machine.threads, Wait::block)) return fail("threads wait at different barriers");
    release(0, machine.threads, true);
    ++machine.counts.block_barriers;
  }
}

void wait_at(const char* file, char kind, int number) {
  const std::string path = file;
  const std::string name = path.substr(path.find_last_of('/') + 1) + ":" + kind + std::to_string(number);
  machine.barriers.insert(name);
  Thread& thread = machine.thread();
  if (name != machine.options.without_barrier) {
    thread.wait = kind == 'B' ? Wait::block : Wait::warp;
    thread.waits_at = name;
  }
  thread.fiber.yield(false);
}

}  // namespace

void fail(const std::string& what) {
  if (machine.error.empty()) {
    machine.error =
        what + " (block " + std::to_string(machine.block) + ", thread " + std::to_string(machine.current) + ")";
  }
  if (machine.current < 0) return;
  machine.thread().wait = Wait::done;
  machine.thread().fiber.yield(true);
}

std::string where(Site site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

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
void block_barrier(const char* file, int number) {
  wait_at(file, 'B', number);
}
void warp_barrier(const char* file, int number) {
  wait_at(file, 'W', number);
}
void on_turn() {
  ++machine.thread().turn;
}
bool faulty(int number) {
  return number == machine.options.fault;
}

cudaError_t run(int64_t blocks, int threads, int64_t shared_bytes, const std::function<void()>& kernel) {
  machine.kernel = kernel;
  machine.blocks = blocks;
  machine.threads = threads;
  if (static_cast<int>(machine.threads_of_block.size()) < threads) machine.threads_of_block.resize(threads);
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
std::vector<std::string> barriers_seen() {
  return {machine.barriers.begin(), machine.barriers.end()};
}

}  // namespace emulator
}  // namespace spn
