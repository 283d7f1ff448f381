// What this machine's CPU can do, by the names that gcc gives to its features.
#pragma once

namespace clearhead {

// The features that are known here, of this architecture; null ends the list.
extern const char* const kCpuFeatures[];

// Whether this CPU has every feature of a list such as "avx2,fma". A name that is not known here is not supported.
bool cpu_supports(const char* features);

}  // namespace clearhead
