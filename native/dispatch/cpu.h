// The features of this machine's CPU, by gcc's names.
#pragma once

namespace clearhead {

// The features of this architecture that this file can test; null ends the list.
extern const char* const kCpuFeatures[];

// Whether this CPU has every feature of a list such as "avx2,fma". An unknown name counts as missing.
bool cpu_supports(const char* features);

}  // namespace clearhead
