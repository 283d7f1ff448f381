// Which keys a run of queries may attend: a band along the diagonal, reach_low() <= key - query <= reach_high().
#pragma once
#include "vector/vector.h"

namespace clearhead {
namespace {

// The limits on key - query, with both counted from 0.
inline int64_t reach_low(const Attention& p) { return p.band_low + p.first_query - p.first_key; }
inline int64_t reach_high(const Attention& p) { return p.band_high + p.first_query - p.first_key; }

// Keys first .. last - 1 that any of the queries first_row .. first_row + rows - 1 may attend.
struct Span {
  int64_t first, last;
};

inline Span span_of(const Attention& p, int64_t first_row, int64_t rows) {
  return {larger(0, first_row + reach_low(p)), smaller(p.keys, first_row + rows + reach_high(p))};
}

// Whether every one of these queries may attend every one of these keys.
inline bool inside_band(const Attention& p, int64_t first_row, int64_t rows, int64_t first_key, int64_t keys) {
  return first_row + rows - 1 + reach_low(p) <= first_key && first_key + keys - 1 <= first_row + reach_high(p);
}

// Set logits[j][lane] outside the band to -inf. Only keys near an edge of the band are read.
inline void cut_to_band(const Attention& p, int64_t first_row, int64_t first_key, int64_t keys, Real* logits,
                        int64_t stride, int64_t lanes) {
  const VecI lane = lane_numbers();
  const Vec nothing = splat(-kInfinity);
  for (int64_t v = 0; v < lanes; v += LANES) {
    const int64_t difference = first_key - (first_row + v);  // key - query at j = 0, lane 0
    const int64_t low = larger(-(1 << 30), smaller(1 << 30, reach_low(p) - difference));
    const int64_t high = larger(-(1 << 30), smaller(1 << 30, reach_high(p) - difference));
    const auto cut = [&](int64_t from, int64_t to) {
      for (int64_t j = from; j < to; j++) {
        const VecI key = splat_int(Int(j)) - lane;
        Real* at = logits + j * stride + v;
        const Vec x = load(at);
        store(at, ((key < splat_int(Int(low))) | (key > splat_int(Int(high)))) ? nothing : x);
      }
    };
    const int64_t below = larger(0, smaller(keys, low + LANES - 1));  // keys 0 .. below - 1 may lie below the band
    cut(0, below);
    cut(larger(below, high + 1), keys);
  }
}

}  // namespace
}  // namespace clearhead
