// The interface of the emulated machine: options before a run, counts and errors after it.
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
  int fault = -1;               // index of the active fault among those in the source (mutations.py)
};

struct Counts {
  int64_t sectors_read = 0, sectors_written = 0;   // 32 bytes each, per access of a warp
  int64_t bytes_read = 0, bytes_written = 0;       // requested by the threads
  int64_t shared_accesses = 0, shared_passes = 0;  // of warps, 128 bytes at most; passes are accesses plus conflicts
  int64_t block_barriers = 0, warp_barriers = 0;   // of blocks, of warps
  int64_t launches = 0, blocks = 0;
};

// Global memory of the kernels. A buffer that is not `written` must be written by a kernel before it is read.
void add_buffer(const char* name, const void* data, size_t bytes, bool written, bool writable);

void reset(const Options& options);
const Counts& counts();
const std::string& error();  // the first error; empty if there was none
std::string unwritten();     // names of writable buffers with bytes that no kernel wrote
std::vector<std::string> barriers_seen();

}  // namespace emulator
}  // namespace spn
