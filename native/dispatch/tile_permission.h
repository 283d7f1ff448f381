// Whether this process may use the tile registers of Intel AMX. Linux gives them to a process that asks; each thread
// then has 8 KiB more of state from its first use on.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace clearhead {
namespace {

// Asks the system once. It refuses where the CPU or the kernel has no tiles, a sandbox forbids to ask, or a thread's
// signal stack is too small for them: then there are none.
inline bool may_use_tiles() {
#if defined(__x86_64__) && defined(__linux__)
  static const bool granted = [] {
    constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
  }();
  return granted;
#else
  return false;
#endif
}

}  // namespace
}  // namespace clearhead
