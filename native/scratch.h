// Room for the work of a call's threads. For the files that spread work over threads, never for a target's object file.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace clearhead {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};
using Floats = std::unique_ptr<float[], Free>;

inline Floats allocate(size_t floats) {
  const size_t bytes = (floats * sizeof(float) + 63) / 64 * 64;
  void* p = std::aligned_alloc(64, bytes ? bytes : 64);
  if (!p) throw std::bad_alloc();
  return Floats(static_cast<float*>(p));
}

// Scratch that a calling thread keeps from call to call while it is small: the allocator would give the pages back
// to the system each time, and faulting them in again took ten times as long as a small attention (bench/LOG.md).
constexpr size_t kKeptFloats = 1 << 20;

class Scratch {
 public:
  explicit Scratch(size_t floats) {
    static thread_local Floats kept;
    static thread_local size_t capacity = 0;
    if (floats > kKeptFloats) {
      own_ = allocate(floats);
      data_ = own_.get();
      return;
    }
    if (floats > capacity) {
      capacity = 0;
      kept = allocate(floats);
      capacity = floats;
    }
    data_ = kept.get();
  }
  float* get() const { return data_; }

 private:
  Floats own_;
  float* data_;
};

inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

}  // namespace
}  // namespace clearhead
