// Choosing a compiled target, and spreading its work items over threads.
#pragma once
#include "arguments.h"

namespace clearhead {

int target_count();
const Target& target_at(int index);  // best first; throws std::out_of_range
bool supported(const Target&);       // whether this CPU has every feature the target needs

// `threads` is the caller's thread setting. Throws std::bad_alloc if scratch cannot be allocated.
void run_forward(const Target&, const Attention&, int threads, const Statistics* statistics = nullptr);
void run_backward(const Target&, const Attention&, const Gradients&, int threads);
// The outputs that are sums over queries are added to what they contain.
void run_statistics(const Target&, const Attention&, const Statistics&, int threads);
void run_linear(const Target&, const Linear&, int threads);
// run_forward(), and the weights (B, H, L, S); or, if their head stride is 0, the mean over heads.
void run_weights(const Target&, const Attention&, const Tensor& weights, int threads,
                 const Statistics* statistics = nullptr);

// Returns the floating-point operations done by `threads` threads, each repeating multiply-adds `steps` times.
double run_peak(const Target&, int64_t steps, int threads);

}  // namespace clearhead
