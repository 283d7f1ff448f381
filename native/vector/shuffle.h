// Lanes of two vectors in another order, known at compile time: __builtin_shufflevector, which gcc 12 and clang share,
// takes each lane's number as a separate argument.
#pragma once
#include "vector/vector.h"

namespace clearhead {
namespace {

template <int... Lane>
struct LaneNumbers {};

template <int N, int... Lane>
struct CountLanes : CountLanes<N - 1, N - 1, Lane...> {};

template <int... Lane>
struct CountLanes<0, Lane...> {
  using Numbers = LaneNumbers<Lane...>;
};

template <class Order, int... Lane>
inline __attribute__((always_inline)) Vec shuffle(Vec a, Vec b, LaneNumbers<Lane...>) {
  return __builtin_shufflevector(a, b, Order::from(Lane)...);
}

// Lane l of the result is lane Order::from(l) of a followed by b.
template <class Order>
inline __attribute__((always_inline)) Vec shuffle(Vec a, Vec b) {
  return shuffle<Order>(a, b, typename CountLanes<LANES>::Numbers{});
}

// The rows i and i + H of Eklundh's transposition after the squares of side H off the diagonal were swapped.
template <int H>
struct UpperSquares {
  static constexpr int from(int l) { return l & H ? LANES + l - H : l; }
};
template <int H>
struct LowerSquares {
  static constexpr int from(int l) { return l & H ? LANES + l : l + H; }
};

struct EvenLanes {
  static constexpr int from(int l) { return 2 * l; }
};
struct OddLanes {
  static constexpr int from(int l) { return 2 * l + 1; }
};

// a[0], b[0], a[1], b[1], …: the first half of that, and the second.
struct InterleavedLow {
  static constexpr int from(int l) { return l / 2 + l % 2 * LANES; }
};
struct InterleavedHigh {
  static constexpr int from(int l) { return LANES / 2 + l / 2 + l % 2 * LANES; }
};

// Within each four lanes: a[0], b[0], a[1], b[1]; a[2], b[2], a[3], b[3]; a[0], a[1], b[0], b[1]; a[2], a[3], b[2], b[3].
struct QuartersLow {
  static constexpr int from(int l) { return l / 4 * 4 + l % 4 / 2 + l % 2 * LANES; }
};
struct QuartersHigh {
  static constexpr int from(int l) { return QuartersLow::from(l) + 2; }
};
struct QuarterFronts {
  static constexpr int from(int l) { return l / 4 * 4 + l % 2 + l % 4 / 2 * LANES; }
};
struct QuarterBacks {
  static constexpr int from(int l) { return QuarterFronts::from(l) + 2; }
};

// One step of Eklundh's transposition: in every square of side 2H, swap the two off-diagonal squares of side H.
template <int H>
inline __attribute__((always_inline)) void swap_squares(Vec (&v)[LANES]) {
  UNROLL for (int i = 0; i < LANES; i++) {
    if (i & H) continue;
    const Vec a = v[i], b = v[i + H];
    v[i] = shuffle<UpperSquares<H>>(a, b);
    v[i + H] = shuffle<LowerSquares<H>>(a, b);
  }
}

inline __attribute__((always_inline)) void transpose(Vec (&v)[LANES]) {
  if constexpr (LANES > 8) swap_squares<8>(v);
  if constexpr (LANES > 4) swap_squares<4>(v);
  swap_squares<2>(v);
  swap_squares<1>(v);
}

}  // namespace
}  // namespace clearhead
