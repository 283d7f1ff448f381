#include "dispatch/cpu.h"

#include <cstring>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include "dispatch/tile_permission.h"

namespace clearhead {

#if defined(__x86_64__) || defined(__i386__)
#define CLEARHEAD_FEATURES(X)                                                                          \
  X("avx2") X("fma") X("avx512f") X("avx512bw") X("avx512dq") X("avx512vl") X("avx512bf16")
// name, leaf and bit of CPUID, in ECX of leaf 1 and EDX of leaf 7: clang 14's __builtin_cpu_supports lacks these names.
#define CLEARHEAD_CPUID(X) X("f16c", 1, 29) X("amx-tile", 7, 24) X("amx-bf16", 7, 22) X("amx-int8", 7, 25)
#define CLEARHEAD_VENDORS(X) X("amd") X("intel")
#else
#define CLEARHEAD_FEATURES(X)
#define CLEARHEAD_CPUID(X)
#define CLEARHEAD_VENDORS(X)
#endif

#define NAME(feature, ...) feature,
const char* const kCpuFeatures[] = {CLEARHEAD_FEATURES(NAME) CLEARHEAD_CPUID(NAME) CLEARHEAD_VENDORS(NAME) nullptr};
#undef NAME

namespace {

#if defined(__x86_64__) || defined(__i386__)
bool cpuid_bit(unsigned leaf, int bit) {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(leaf, 0, &a, &b, &c, &d) && ((leaf == 1 ? c : d) >> bit & 1);
}
#endif

bool has([[maybe_unused]] const char* name, [[maybe_unused]] size_t length) {
  // The built-in functions accept only literals. The first also checks that the operating system saves the registers.
#define IS_NAMED(feature) std::strlen(feature) == length && !std::strncmp(name, feature, length)
#define HAS(feature) \
  if (IS_NAMED(feature)) return __builtin_cpu_supports(feature);
#define IS(vendor) \
  if (IS_NAMED(vendor)) return __builtin_cpu_is(vendor);
#define HAS_BIT(feature, leaf, bit) \
  if (IS_NAMED(feature)) return cpuid_bit(leaf, bit);
  CLEARHEAD_FEATURES(HAS)
  CLEARHEAD_CPUID(HAS_BIT)
  CLEARHEAD_VENDORS(IS)
#undef IS
#undef HAS
#undef HAS_BIT
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

int cpu_family() {
#if defined(__x86_64__) || defined(__i386__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
  const int family = int(a >> 8 & 0xF);
  return family == 0xF ? family + int(a >> 20 & 0xFF) : family;
#else
  return 0;
#endif
}

}  // namespace clearhead
