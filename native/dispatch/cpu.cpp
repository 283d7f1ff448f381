#include "dispatch/cpu.h"

#include <cstring>

#include "dispatch/tile_permission.h"

namespace clearhead {

#if defined(__x86_64__) || defined(__i386__)
#define CLEARHEAD_FEATURES(X)                                                                          \
  X("avx2") X("fma") X("f16c") X("avx512f") X("avx512bw") X("avx512dq") X("avx512vl") X("avx512bf16") \
  X("amx-tile") X("amx-bf16") X("amx-int8")
#else
#define CLEARHEAD_FEATURES(X)
#endif

#define NAME(feature) feature,
const char* const kCpuFeatures[] = {CLEARHEAD_FEATURES(NAME) nullptr};
#undef NAME

namespace {

bool has(const char* name, size_t length) {
  // The built-in function takes literals alone. It also asks whether the operating system saves the registers.
#define HAS(feature) \
  if (std::strlen(feature) == length && !std::strncmp(name, feature, length)) return __builtin_cpu_supports(feature);
  CLEARHEAD_FEATURES(HAS)
#undef HAS
  return false;
}

}  // namespace

bool cpu_supports(const char* features) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
#endif
  for (const char* name = features; *name;) {
    const size_t length = std::strcspn(name, ",");
    if (!has(name, length)) return false;
    if (!std::strncmp(name, "amx-", 4) && !may_use_tiles()) return false;
    name += length + (name[length] == ',');
  }
  return true;
}

}  // namespace clearhead
