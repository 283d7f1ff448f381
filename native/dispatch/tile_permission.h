// Whether this process may use the tile registers of Intel AMX. On Linux a process has to request them; each thread has
// 8 KiB more state from its first use on.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace clearhead {
namespace {

// Requests them once. The system refuses if the CPU or the kernel has no tiles, a sandbox forbids the request, or a
// thread's signal stack is too small.
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
