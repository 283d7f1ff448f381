// Compiled once per CPU target, with -DTARGET=name -DLANES=… -DROWS=… and that target's -m flags, which -DNEEDS= lists
// without the -m. -DPAIRS multiplies bfloat16 in pairs, -DTILES on tile registers. -DDOUBLES_OF= names the target whose
// float64 passes (target_f64.cpp) it uses. -DDTYPES= lists the dtypes it computes, if not all four. -DFOR_TESTS keeps it
// from being chosen.
#include "backward/bf16.h"
#include "passes/decode.h"
#include "passes/forward_bf16.h"
#include "passes/linear.h"
#include "vector/peak.h"
#include "passes/statistics.h"
#include "targets/target.h"
#include "passes/weights.h"

#ifndef NEEDS
#error "give the CPU features the target needs: -DNEEDS=avx2,fma, or -DNEEDS= for none"
#endif
#ifndef DTYPES
#define DTYPES float32,bfloat16,float16,float64
#endif
#ifdef FOR_TESTS
#define IS_FOR_TESTS true
#else
#define IS_FOR_TESTS false
#endif
#if defined(TILES) || (defined(PAIRS) && defined(__AVX512BF16__))
#define FLUSHES "bfloat16"  // tdpbf16ps and vdpbf16ps treat denormals as 0
#else
#define FLUSHES ""
#endif

namespace clearhead {
extern const Passes<double> JOINED(doubles_, DOUBLES_OF);
extern const Target JOINED(target_, TARGET);
const Target JOINED(target_, TARGET) = {
    {TEXT(TARGET), kTile, TEXT(NEEDS), TEXT(DTYPES), FLUSHES, IS_FOR_TESTS},
    {
        scratch_of_forward, tiled_keys, tile_keys, forward,
        decode_partial, decode_scratch, decode, decode_merge,
        backward_by_dtype, scratch_of_backward, key_sums, store_key_sums,
    },
    &JOINED(doubles_, DOUBLES_OF),
    statistics_scratch, statistics_sums, statistics,
    linear_scratch, linear,
    weights_scratch, weights,
    multiply_adds,
};
}  // namespace clearhead
