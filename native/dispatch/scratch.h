// Scratch for a call's threads. Only for the files that spread work over threads, never for a target's object file.
#pragma once
#include <cstdlib>
#include <memory>
#include <new>

#ifdef _WIN32
#include <malloc.h>
#endif

namespace clearhead {
namespace {

#ifdef _WIN32  // has no std::aligned_alloc, and its own function to free such memory
inline void* aligned(size_t bytes) { return _aligned_malloc(bytes, 64); }
inline void release(void* p) { _aligned_free(p); }
#else
inline void* aligned(size_t bytes) { return std::aligned_alloc(64, bytes); }
inline void release(void* p) { std::free(p); }
#endif

struct Free {
  void operator()(void* p) const { release(p); }
};
template <class Number>
using Numbers = std::unique_ptr<Number[], Free>;

template <class Number>
Numbers<Number> allocate(size_t n) {
  const size_t bytes = (n * sizeof(Number) + 63) / 64 * 64;
  void* p = aligned(bytes ? bytes : 64);
  if (!p) throw std::bad_alloc();
  return Numbers<Number>(static_cast<Number*>(p));
}

// Round n up to whole cache lines, so that no two threads write to the same line.
inline size_t in_lines(size_t n) { return (n + 15) / 16 * 16; }

// Scratch that a calling thread keeps from call to call if it is small. Otherwise the allocator returned the pages to
// the system each time, and faulting them in again took ten times as long as a small attention (bench/LOG.md).
constexpr size_t kKept = 1 << 22;

template <class Number>
class Scratch {
 public:
  explicit Scratch(size_t n) {
    static thread_local Numbers<Number> kept;
    static thread_local size_t capacity = 0;
    if (n > kKept) {
      own_ = allocate<Number>(n);
      data_ = own_.get();
      return;
    }
    if (n > capacity) {
      capacity = 0;
      kept = allocate<Number>(n);
      capacity = n;
    }
    data_ = kept.get();
  }
  Number* get() const { return data_; }

 private:
  Numbers<Number> own_;
  Number* data_;
};

}  // namespace
}  // namespace clearhead
