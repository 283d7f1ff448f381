// Compiled once per CPU target, with -DTARGET=name -DLANES=… -DROWS=… and that target's -m flags; with -DPAIRS
// where bfloat16 is multiplied in pairs, -DTILES where on tile registers; -DDOUBLES_OF=name says whose float64 is its own (target_f64.cpp).
#include "backward.h"
#include "decode.h"
#include "forward_bf16.h"
#include "linear.h"
#include "peak.h"
#include "statistics.h"
#include "target.h"
#include "weights.h"

namespace clearhead {
extern const Passes<double> JOINED(doubles_, DOUBLES_OF);
extern const Target JOINED(target_, TARGET);
const Target JOINED(target_, TARGET) = {
    TEXT(TARGET), kTile,
    {
        scratch_of_forward, tiled_keys, tile_keys, forward,
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
