// Backward for bfloat16 where it has its own kernels, on tile registers.
#pragma once
#include "passes/backward.h"

#ifdef TILES
#include "tiles/backward.h"
#endif

namespace clearhead {
namespace {

#ifdef TILES

// Few queries use passes/backward_few.h.
inline bool backward_in_tiles(const Attention& p) { return p.dtype == kBFloat16 && !few_queries(p); }

size_t scratch_of_backward(const Attention& p) {
  return backward_in_tiles(p) ? backward_tiles_scratch(p) : backward_scratch(p);
}

void backward_by_dtype(const Attention& p, const Gradients& g, int64_t batch, int64_t kv_head, int64_t first,
                       int64_t last, float* sums, float* scratch) {
  if (backward_in_tiles(p)) backward_on_tiles(p, g, batch, kv_head, first, last, sums, scratch);
  else backward(p, g, batch, kv_head, first, last, sums, scratch);
}

#else

constexpr auto scratch_of_backward = backward_scratch;
constexpr auto backward_by_dtype = backward;

#endif

}  // namespace
}  // namespace clearhead
