// The threads of a call: how many are worth it, and which one runs. Only for the files that spread work over threads.
#pragma once
#include <cstdint>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace clearhead {
namespace {

// A parallel region takes a few microseconds: below this many multiply-adds one thread is faster.
constexpr double kWorthThreads = 2e5;

inline int useful_threads(double multiply_adds, int threads) {
  return multiply_adds < kWorthThreads || threads < 1 ? 1 : threads;
}

// One item needs no team. Several have the whole one, even if they are fewer than its threads: libgomp ends the threads
// that a smaller team leaves over, and the next region has to start them again.
inline int threads_for(int64_t items, int threads) { return items > 1 && threads > 1 ? threads : 1; }

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace
}  // namespace clearhead
