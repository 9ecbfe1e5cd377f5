// The emulated device: the state that its parts share.
//
//   scheduler.cpp  blocks, warps and barriers: which thread runs next
//   fiber.h        a thread: a separate stack that can be left and resumed
//   memory.cpp     accesses: bounds, initialisation, races, asynchronous copies
//   counters.cpp   accesses: sectors of global memory, banks of shared memory
#pragma once

#include <functional>
#include <random>
#include <set>
#include <unordered_map>

#include "emulator.h"
#include "fiber.h"

namespace spn {
namespace emulator {

constexpr int kWarp = 32;
constexpr unsigned char kPoison = 0xFF;  // NaN in every dtype

enum class Wait { none, block, warp, done };

struct Copy {
  void* shared;
  const void* global;  // null: zeros
  size_t bytes;
  Site site;
};

struct Thread {
  Fiber fiber;
  Wait wait = Wait::none;
  std::string waits_at;
  uint32_t block_epoch = 0, warp_epoch = 0;  // barriers passed
  std::vector<std::vector<Copy>> copies;     // committed groups, and the open one
  uint64_t turn = 0;
  std::unordered_map<uint64_t, uint32_t> occurrences;  // per instruction, in this turn
};

// An access to a byte, with the data that order it against other accesses.
struct Access {
  int32_t block = -1, thread = -1, warp = -1;  // thread kMany: several threads of the warp
  uint32_t block_epoch = 0, warp_epoch = 0;
};
constexpr int kMany = -2;

// The state of a byte.
struct Shadow {
  Access write, read, read_of_another_warp;
  bool written = false;
  bool awaited = false;  // an asynchronous copy to this byte is pending
};

struct Buffer {
  std::string name;
  uintptr_t begin, end;
  bool written, writable;
  std::vector<Shadow> shadow;
};

// One access of a warp: all accesses of its threads at one place in the source, in one turn.
struct WarpAccess {
  bool write, shared;
  size_t bytes;                                 // per thread
  std::vector<std::pair<int, uint64_t>> units;  // (lane, sector or word)
};

struct Machine {
  Options options;
  Counts counts;
  std::string error;
  std::vector<Buffer> buffers;
  std::set<std::string> barriers;

  std::vector<unsigned char> shared;
  std::vector<Shadow> shared_shadow;
  std::vector<Thread> threads_of_block;
  std::function<void()> kernel;
  int threads = 0, current = -1;
  int64_t block = 0, blocks = 0;
  std::mt19937_64 random;
  std::vector<std::unordered_map<uint64_t, WarpAccess>> warp_accesses;

  Thread& thread() { return threads_of_block[current]; }
  bool in_shared(uintptr_t address) const {
    const uintptr_t begin = reinterpret_cast<uintptr_t>(shared.data());
    return address >= begin && address < begin + shared.size();
  }
};

extern Machine machine;

// Records the first fault and stops the running thread, because its further results would be meaningless.
void fail(const std::string& what);

std::string where(Site site);
void count_access(uintptr_t address, size_t bytes, bool write, Site site);
void close_counts();  // at the end of a block

}  // namespace emulator
}  // namespace spn
