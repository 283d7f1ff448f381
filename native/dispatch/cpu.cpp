#include "dispatch/cpu.h"

#include <cstring>

#include "dispatch/tile_permission.h"

namespace clearhead {

#if defined(__x86_64__) || defined(__i386__)
#define CLEARHEAD_FEATURES(X)                                                                          \
  X("avx2") X("fma") X("f16c") X("avx512f") X("avx512bw") X("avx512dq") X("avx512vl") X("avx512bf16") \
  X("amx-tile") X("amx-bf16") X("amx-int8")
#define CLEARHEAD_VENDORS(X) X("amd") X("intel")
#else
#define CLEARHEAD_FEATURES(X)
#define CLEARHEAD_VENDORS(X)
#endif

#define NAME(feature) feature,
const char* const kCpuFeatures[] = {CLEARHEAD_FEATURES(NAME) CLEARHEAD_VENDORS(NAME) nullptr};
#undef NAME

namespace {

bool has(const char* name, size_t length) {
  // The built-in functions take literals alone. The first also asks whether the operating system saves the registers.
#define IS_NAMED(feature) std::strlen(feature) == length && !std::strncmp(name, feature, length)
#define HAS(feature) \
  if (IS_NAMED(feature)) return __builtin_cpu_supports(feature);
#define IS(vendor) \
  if (IS_NAMED(vendor)) return __builtin_cpu_is(vendor);
  CLEARHEAD_FEATURES(HAS)
  CLEARHEAD_VENDORS(IS)
#undef IS
#undef HAS
#undef IS_NAMED
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
