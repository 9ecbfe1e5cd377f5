// The machine's state: what is set before a run, and what is read after it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "simt_emulator.h"

namespace spn {
namespace emulator {

struct Options {
  uint64_t seed = 0;
  bool check = true;            // bounds, races, reads of what was never written
  bool count = false;           // sectors and banks
  std::string without_barrier;  // "forward.h:B0" or "forward.h:W1": threads run past it
  int fault = -1;               // of those that were put into the source (mutations.py), the one that is there
};

struct Counts {
  int64_t sectors_read = 0, sectors_written = 0;   // 32 bytes each, per warp's access
  int64_t bytes_read = 0, bytes_written = 0;       // asked for by the threads
  int64_t shared_accesses = 0, shared_passes = 0;  // of warps, 128 bytes at most; passes are accesses plus conflicts
  int64_t block_barriers = 0, warp_barriers = 0;   // of blocks, of warps
  int64_t launches = 0, blocks = 0;
};

// Global memory that kernels may touch. What is not `written` may not be read before a kernel writes it.
void add_buffer(const char* name, const void* data, size_t bytes, bool written, bool writable);

void reset(const Options& options);
const Counts& counts();
const std::string& error();  // the first thing that was wrong; empty if nothing was
std::string unwritten();     // names of writable buffers with bytes that no kernel wrote
std::vector<std::string> barriers_seen();

}  // namespace emulator
}  // namespace spn
