// The cost of accesses: sectors of 32 bytes in global memory, passes over the banks of shared memory.
#include <algorithm>

#include "machine.h"

namespace spn {
namespace emulator {

namespace {

constexpr int kBanks = 32, kBankBytes = 4, kSectorBytes = 32;

uint64_t mixed(uint64_t a, uint64_t b) {
  return (a ^ b) * 0x9E3779B97F4A7C15ull;
}

// Returns the number of distinct sectors.
int64_t sectors_of(const WarpAccess& access) {
  std::set<uint64_t> sectors;
  for (const auto& [lane, sector] : access.units) sectors.insert(sector);
  return static_cast<int64_t>(sectors.size());
}

// An access of 8 or 16 bytes per thread is served in 2 or 4 phases, each as wide as all banks together. Words that
// share a bank within a phase need separate passes.
void count_shared(const WarpAccess& access, Counts& counts) {
  const int words = std::max<int>(1, static_cast<int>(access.bytes) / kBankBytes);
  const int lanes = std::max(1, kWarp / words);
  std::vector<std::set<uint64_t>> phases((kWarp + lanes - 1) / lanes);
  for (const auto& [lane, word] : access.units) phases[lane / lanes].insert(word);
  for (const auto& phase : phases) {
    if (phase.empty()) continue;
    int banks[kBanks] = {};
    for (uint64_t word : phase) ++banks[word % kBanks];
    ++counts.shared_accesses;
    counts.shared_passes += *std::max_element(banks, banks + kBanks);
  }
}

}  // namespace

void count_access(uintptr_t address, size_t bytes, bool write, Site site) {
  const bool shared = machine.in_shared(address);
  Counts& c = machine.counts;
  Thread& thread = machine.thread();
  if (!shared) (write ? c.bytes_written : c.bytes_read) += static_cast<int64_t>(bytes);
  // `what` identifies the instruction; `occurrences` counts how often this thread executed it in this turn.
  const uint64_t place = mixed(std::hash<const void*>()(site.file), static_cast<uint64_t>(site.line));
  const uint64_t what = mixed(mixed(place, write * 2 + shared), thread.turn);
  const uint64_t key = mixed(what, thread.occurrences[what]++ + 1);
  WarpAccess& access = machine.warp_accesses[machine.current / kWarp][key];
  access.write = write;
  access.shared = shared;
  access.bytes = bytes;
  const uintptr_t begin = shared ? address - reinterpret_cast<uintptr_t>(machine.shared.data()) : address;
  const int unit = shared ? kBankBytes : kSectorBytes;
  for (uintptr_t u = begin / unit; u <= (begin + bytes - 1) / unit; ++u) {
    access.units.emplace_back(machine.current % kWarp, u);
  }
}

void close_counts() {
  Counts& c = machine.counts;
  for (auto& warp : machine.warp_accesses) {
    for (const auto& [key, access] : warp) {
      if (access.shared) {
        count_shared(access, c);
      } else {
        (access.write ? c.sectors_written : c.sectors_read) += sectors_of(access);
      }
    }
    warp.clear();
  }
  for (Thread& thread : machine.threads_of_block) thread.occurrences.clear();
}

}  // namespace emulator
}  // namespace spn
