// Checks every access of a thread: it must be inside an array, read only written bytes, and be ordered by barriers.
#include <cstring>

#include "machine.h"

namespace spn {
namespace emulator {

namespace {

int warp_of(int thread) {
  return thread / kWarp;
}

// Returns whether `earlier` and an access of the running thread may happen in either order. Blocks are never ordered,
// but each has separate shared memory.
bool unordered(const Access& earlier, bool is_shared) {
  if (earlier.block < 0) return false;
  if (earlier.block != machine.block) return !is_shared;
  const Thread& thread = machine.thread();
  if (earlier.thread == machine.current || earlier.block_epoch < thread.block_epoch) return false;
  return earlier.warp != warp_of(machine.current) || earlier.warp_epoch >= thread.warp_epoch;
}

Access now() {
  const Thread& thread = machine.thread();
  return {static_cast<int32_t>(machine.block), machine.current, warp_of(machine.current), thread.block_epoch,
          thread.warp_epoch};
}

// Records the readers that a later write is checked against: the last reader, whether others of its warp also read, and
// a reader of another warp.
void remember_read(Shadow& s) {
  const Access access = now();
  if (s.read.block == access.block && s.read.block_epoch == access.block_epoch) {
    if (s.read.warp != access.warp) {
      s.read_of_another_warp = s.read;
    } else if (s.read.warp_epoch == access.warp_epoch && s.read.thread != access.thread) {
      s.read = access;
      s.read.thread = kMany;
      return;
    }
  }
  s.read = access;
}

void check_byte(Shadow& s, bool write, bool is_shared, const char* array, Site site) {
  const auto name = [&] { return std::string(array); };
  if (write) {
    if (unordered(s.write, is_shared)) fail("race: two writes to " + name() + " at " + where(site));
    if (unordered(s.read, is_shared) || unordered(s.read_of_another_warp, is_shared)) {
      fail("race: a write after a read of " + name() + " at " + where(site));
    }
    s.write = now();
    s.written = true;
  } else {
    if (!s.written) fail("read of " + name() + " that nothing wrote, at " + where(site));
    if (unordered(s.write, is_shared)) fail("race: a read after a write of " + name() + " at " + where(site));
    remember_read(s);
  }
}

void check_shared(uintptr_t address, size_t bytes, bool write, Site site) {
  const uintptr_t offset = address - reinterpret_cast<uintptr_t>(machine.shared.data());
  if (offset + bytes > machine.shared.size()) return fail("shared memory is left at " + where(site));
  for (size_t i = 0; i < bytes; ++i) {
    Shadow& s = machine.shared_shadow[offset + i];
    if (s.awaited) fail("a copy is on its way to what is accessed at " + where(site));
    check_byte(s, write, true, "shared memory", site);
  }
}

void await_copy(const void* shared, size_t bytes, bool awaited) {
  if (!machine.options.check) return;
  const size_t offset = static_cast<const unsigned char*>(shared) - machine.shared.data();
  for (size_t i = 0; i < bytes; ++i) machine.shared_shadow[offset + i].awaited = awaited;
}

void check_global(uintptr_t address, size_t bytes, bool write, Site site) {
  for (Buffer& buffer : machine.buffers) {
    if (address < buffer.begin || address + bytes > buffer.end) continue;
    if (!buffer.writable) {
      if (write) fail("write to " + buffer.name + " at " + where(site));
      return;
    }
    Shadow* shadow = buffer.shadow.data() + (address - buffer.begin);
    for (size_t i = 0; i < bytes; ++i) check_byte(shadow[i], write, false, buffer.name.c_str(), site);
    return;
  }
  fail("access outside every array at " + where(site));
}

void touch(const void* pointer, size_t bytes, bool write, Site site) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  if (bytes <= 16 && address % bytes) fail("misaligned access at " + where(site));
  if (machine.options.count) count_access(address, bytes, write, site);
  if (!machine.options.check) return;
  if (machine.in_shared(address)) {
    check_shared(address, bytes, write, site);
  } else {
    check_global(address, bytes, write, site);
  }
}

void arrive(const Copy& copy) {
  await_copy(copy.shared, copy.bytes, false);
  if (machine.options.check) {
    check_shared(reinterpret_cast<uintptr_t>(copy.shared), copy.bytes, true, copy.site);
  }
  if (copy.global) {
    std::memcpy(copy.shared, copy.global, copy.bytes);
  } else {
    std::memset(copy.shared, 0, copy.bytes);
  }
}

}  // namespace

void on_read(const void* address, size_t bytes, Site site) {
  touch(address, bytes, false, site);
}
void on_write(const void* address, size_t bytes, Site site) {
  touch(address, bytes, true, site);
}

// The copy may happen at any time before the wait ends: the destination is poisoned now, must not be accessed until
// then, and is written then.
void copy_async(void* shared, const void* global, size_t bytes, Site site) {
  if (global) touch(global, bytes, false, site);
  touch(shared, bytes, true, site);
  if (!machine.in_shared(reinterpret_cast<uintptr_t>(shared))) {
    return fail("an asynchronous copy must go to shared memory");
  }
  std::memset(shared, kPoison, bytes);
  await_copy(shared, bytes, true);
  machine.thread().copies.back().push_back({shared, global, bytes, site});
}

void copy_commit() {
  machine.thread().copies.emplace_back();
}

void copy_wait(int pending) {
  auto& copies = machine.thread().copies;
  while (static_cast<int>(copies.size()) - 1 > pending) {
    for (const Copy& copy : copies.front()) arrive(copy);
    copies.erase(copies.begin());
  }
}

void add_buffer(const char* name, const void* data, size_t bytes, bool written, bool writable) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(data);
  Buffer buffer{name, begin, begin + bytes, written, writable, {}};
  if (machine.options.check && writable) {
    buffer.shadow.resize(bytes);
    for (Shadow& s : buffer.shadow) s.written = written;
  }
  machine.buffers.push_back(std::move(buffer));
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

}  // namespace emulator
}  // namespace spn
