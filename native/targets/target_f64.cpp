// Both passes in doubles, compiled like target.cpp with half the lanes. torch computes statistics and linear layers of
// float64.
#define DOUBLES
#include "backward/backward.h"
#include "passes/decode.h"
#include "passes/forward.h"
#include "targets/target.h"

namespace clearhead {
namespace {

void forward(const Attention& p, const Statistics*, int64_t batch, int64_t head, int64_t first, int64_t rows,
             const double*, double* scratch) {
  forward_rows<false, RealBlock>(p, nullptr, batch, head, first, rows, scratch);
  leave_out_masked_values(p, batch, head, first, rows);
}

}  // namespace

extern const Passes<double> JOINED(doubles_, TARGET);
const Passes<double> JOINED(doubles_, TARGET) = {
    forward_scratch, nothing_tiled, tile_nothing, forward,
    decode_partial, decode_scratch, decode, decode_merge,
    backward, backward_scratch, key_sums, store_key_sums,
};
}  // namespace clearhead
