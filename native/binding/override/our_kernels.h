// Our kernels on the handles of torch's C interface: both passes of a call without Python, which takes 10 to 30 µs a pass.
#pragma once
#include "binding/override/operator_call.h"

namespace clearhead {

// The best target of each Dtype where none is forced: its index, or -1 where a call needs Python to be computed.
void set_targets(const int (&targets)[kFloat64 + 1]);

// Whether compute() can take a call: its tensors lie as our kernels read them. Other calls go through Python.
bool can_compute(const OperatorCall& call);

// Writes the handles of the results, laid out as torch's: output and lse, or the gradients of query, key and value. The lse
// of an empty row is 0. Throws std::bad_alloc where there is no memory.
void compute(const OperatorCall& call, Handle* results);

}  // namespace clearhead
