// Whether our kernels can compute a call on plain tensors as it was given, and the description that they take.
#pragma once
#include "arguments.h"
#include "binding/torch.h"

namespace clearhead {

// Whether a call can take the fast path.
enum FastPath {
  kNone,            // no
  kForward,         // yes, without gradients
  kDifferentiable,  // yes, with gradients
  kTorchReads,      // yes, with gradients; torch's own kernel reads these tensors as well
};

// Describes to `p` the inputs of a call: query (B, H, L, D), key (B, H_kv, S, D) and value (B, H_kv, S, E) of one dtype, none
// empty, and a mask, or null, that broadcasts to (B, H, L, S), bool, float32 or of their dtype. B may be 1 for key and value,
// and so may H_kv; with `grouped` H_kv divides H. All three may lack B, or B and H.
FastPath describe(const View& query, const View& key, const View& value, const View* mask, bool grouped, Attention* p);

// Has `p` write the lse to a tensor (B, H, L).
void write_lse(const View& lse, Attention* p);

}  // namespace clearhead
