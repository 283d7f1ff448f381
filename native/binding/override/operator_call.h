// One call of torch's attention operators for the CPU, as its dispatcher makes it: tensors are handles of its C interface.
#pragma once
#include <cstdint>

#include "binding/torch.h"
#include "binding/torch_shim.h"

namespace clearhead {

using shim::Handle, shim::Value;

// How many tensors the operators take before dropout_p: query, key, value; and grad_out, query, key, value, output, lse.
constexpr int kForwardTensors = 3, kBackwardTensors = 6;

// Torch's functions, once `find()` has found them.
extern shim::Functions torch;

// The arguments of one call, which belong to the kernel that torch calls.
struct OperatorCall {
  const int count;
  Handle tensors[kBackwardTensors], mask = nullptr;
  const double dropout;
  const bool is_causal;
  double scale = 0;
  bool has_scale = false;

  OperatorCall(const Value* stack, int count);
  OperatorCall(const OperatorCall&) = delete;
  ~OperatorCall();

  bool is_backward() const { return count == kBackwardTensors; }
  const Handle* inputs() const { return tensors + is_backward(); }  // query, key, value (, output, lse)
};

// Reads a tensor in CPU memory with up to four axes; returns false for any other. Torch's dispatcher gives a kernel no view
// whose memory holds the negatives of its numbers.
bool look(Handle tensor, View* view);

// A tensor of a Kind that is a dtype, to be filled; `axes` are the sizes from the outermost axis in memory to the innermost,
// and `order` which axis of the tensor each is. The caller deletes the handle.
Handle empty(int axes, const int64_t* sizes, const int* order, int kind, View* view);

// Whether torch's kernel computes a call without an error: its C function writes each error to stderr.
bool torch_computes(const OperatorCall& call);

// Writes the handles of torch's results; returns false where it fails.
bool run_torch(OperatorCall& call, Handle* results);

}  // namespace clearhead
