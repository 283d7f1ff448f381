// The features of this machine's CPU, by gcc's names.
#pragma once

namespace clearhead {

// The features of this architecture that this file can test; null ends the list.
extern const char* const kCpuFeatures[];

// Whether this CPU has every feature of a list such as "avx2,fma". An unknown name counts as missing.
bool cpu_supports(const char* features);

// The family of an x86 CPU as its maker numbers them, as in /proc/cpuinfo; 0 elsewhere. CPUs of two families may have the
// same features: a Zen 4 is of family 25, a Zen 5 of 26.
int cpu_family();

}  // namespace clearhead
