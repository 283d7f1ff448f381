// Compiled once per CPU target, with -DTARGET=name -DLANES=… -DROWS=… and that target's -m flags; with -DPAIRS
// where bfloat16 is multiplied in pairs; -DDOUBLES_OF=name says whose float64 is its own (target_f64.cpp).
#include "passes/backward.h"
#include "passes/decode.h"
#include "passes/forward_bf16.h"
#include "passes/linear.h"
#include "vector/peak.h"
#include "passes/statistics.h"
#include "targets/target.h"
#include "passes/weights.h"

namespace clearhead {
extern const Passes<double> JOINED(doubles_, DOUBLES_OF);
extern const Target JOINED(target_, TARGET);
const Target JOINED(target_, TARGET) = {
    TEXT(TARGET), kTile,
    {
        forward_scratch, forward,
        decode_partial, decode_scratch, decode, decode_merge,
        backward, backward_scratch, key_sums, store_key_sums,
    },
    &JOINED(doubles_, DOUBLES_OF),
    statistics_scratch, statistics_sums, statistics,
    linear_scratch, linear,
    weights_scratch, weights,
    multiply_adds,
};
}  // namespace clearhead
