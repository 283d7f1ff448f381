// Compiled once per CPU target, with -DTARGET=name -DLANES=… -DROWS=… and that target's -m flags; with -DPAIRS
// where bfloat16 is multiplied in pairs.
#include "backward.h"
#include "decode.h"
#include "forward_bf16.h"
#include "linear.h"
#include "peak.h"
#include "statistics.h"
#include "weights.h"

#define NAME_OF(x) #x
#define SYMBOL_OF(x) target_##x
#define TEXT(x) NAME_OF(x)
#define SYMBOL(x) SYMBOL_OF(x)

namespace clearhead {
extern const Target SYMBOL(TARGET);
const Target SYMBOL(TARGET) = {
    TEXT(TARGET), kTile,
    forward_scratch, forward,
    decode_partial, decode_scratch, decode, decode_merge,
    backward, backward_scratch, key_sums, store_key_sums,
    statistics_scratch, statistics_sums, statistics,
    linear_scratch, linear,
    weights_scratch, weights,
    multiply_adds,
};
}  // namespace clearhead
