// Which compiled target runs, and how its work items are spread over threads.
#pragma once
#include "arguments.h"

namespace clearhead {

int target_count();
const Target& target_at(int index);  // best first; throws std::out_of_range
bool supported(const Target&);       // whether this CPU has every feature that it needs

// `threads` is what the caller's framework was told to use. Throws std::bad_alloc where scratch cannot be had.
void run_forward(const Target&, const Attention&, int threads, const Statistics* statistics = nullptr);
void run_backward(const Target&, const Attention&, const Gradients&, int threads);
// Adds to what stands in the outputs that are summed over queries.
void run_statistics(const Target&, const Attention&, const Statistics&, int threads);
void run_linear(const Target&, const Linear&, int threads);
// The forward pass, and the weights (B, H, L, S) as well; or their mean over heads, where heads have stride 0.
void run_weights(const Target&, const Attention&, const Tensor& weights, int threads);

// Floating-point operations done by `threads` threads, each `steps` times round a loop of multiply-adds.
double run_peak(const Target&, int64_t steps, int threads);

}  // namespace clearhead
