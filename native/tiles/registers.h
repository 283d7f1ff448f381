// The tile registers of Intel AMX: eight registers of 16 rows of 64 bytes, and the product of two of them in bfloat16.
// With -DTILE_MODEL the same instructions in plain C++, so that kernels on tiles run on every CPU and under sanitizers.
#pragma once
#include "vector/pairs.h"

namespace clearhead {
namespace {

static_assert(LANES == 16, "a row of a tile is one vector");
constexpr int kTileRows = 16;      // of a tile register; 16 pairs of bfloat16, or 16 floats, in each
constexpr int kTileNumbers = 256;  // 32-bit numbers in a tile register

#ifdef TILE_MODEL

thread_local VecU tile_model[8][kTileRows];

// Tile registers may be used while a TileUse lives. Outside, the model's registers hold NaN.
class TileUse {
 public:
  TileUse() { fill(0); }
  ~TileUse() { fill(0xFFFFFFFF); }
  TileUse(const TileUse&) = delete;

 private:
  static void fill(uint32_t x) {
    for (auto& tile : tile_model)
      for (VecU& row : tile) row = x - VecU{};
  }
};

template <int T>
__attribute__((noinline)) void tile_zero() {
  for (VecU& row : tile_model[T]) row = VecU{};
}

// 16 rows of 64 bytes, `stride` bytes apart.
template <int T>
__attribute__((noinline)) void tile_load(const void* from, int64_t stride) {
  for (int i = 0; i < kTileRows; i++) __builtin_memcpy(&tile_model[T][i], static_cast<const char*>(from) + i * stride, 64);
}

template <int T>
__attribute__((noinline)) void tile_store(void* to, int64_t stride) {
  for (int i = 0; i < kTileRows; i++) __builtin_memcpy(static_cast<char*>(to) + i * stride, &tile_model[T][i], 64);
}

// C[row][lane] += the sum over pairs k of A[row][k] · B[k][lane]. As in the instruction, denormals count as 0, and the
// first and the second numbers of the pairs are summed separately.
template <int C, int A, int B>
__attribute__((noinline)) void tile_multiply() {
  const auto flushed = [](Vec x) { return ((VecU)x & 0x7F800000u) == 0 ? Vec{} : x; };
  Vec first[kTileRows], second[kTileRows];
  for (int k = 0; k < kTileRows; k++) {
    first[k] = flushed(first_of(tile_model[B][k]));
    second[k] = flushed(second_of(tile_model[B][k]));
  }
  for (int row = 0; row < kTileRows; row++) {
    const Vec a0 = flushed(first_of(tile_model[A][row])), a1 = flushed(second_of(tile_model[A][row]));
    Vec sum0 = {}, sum1 = {};
    for (int k = 0; k < kTileRows; k++) {
      sum0 += splat(a0[k]) * first[k];
      sum1 += splat(a1[k]) * second[k];
    }
    tile_model[C][row] = (VecU)flushed((Vec)tile_model[C][row] + (sum0 + sum1));
  }
}

#else

// Tile registers may be used while a TileUse lives: it configures them for this thread, and releases them at its end.
// Until then denormal results of vector instructions are 0 too, as they are on tiles: a scalef with a denormal result
// takes 100 ns (Xeon, family 6 model 207).
class TileUse {
 public:
  TileUse() {
    _mm_setcsr(before_ | 0x8000);
    Configuration all;
    for (int i = 0; i < 8; i++) {
      all.row_bytes[i] = 64;
      all.rows[i] = kTileRows;
    }
    asm volatile("ldtilecfg %0" : : "m"(all));
  }
  ~TileUse() {
    asm volatile("tilerelease");
    _mm_setcsr(before_);
  }
  TileUse(const TileUse&) = delete;

 private:
  const unsigned before_ = _mm_getcsr();
  struct alignas(64) Configuration {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
};

// Assembly instead of gcc's intrinsics: those of version 12 do not say that a tile load reads memory, so the compiler may
// move earlier stores after the load.
template <int T>
inline __attribute__((always_inline)) void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(T));
}

// 16 rows of 64 bytes, `stride` bytes apart.
template <int T>
inline __attribute__((always_inline)) void tile_load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "i"(T) : "memory");
}

template <int T>
inline __attribute__((always_inline)) void tile_store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "i"(T) : "memory");
}

// C[row][lane] += the sum over pairs k of A[row][k] · B[k][lane].
template <int C, int A, int B>
inline __attribute__((always_inline)) void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}

#endif

// The kernels' product: registers 0 to 3 hold 32 rows × 32 lanes of sums, registers 4 and 5 rows, 6 and 7 lanes.
constexpr int kBlock = 2 * kTileRows;  // rows, lanes, and numbers multiplied together
static_assert(kBlock == kTile, "two tile registers side by side are a tile of queries");

inline __attribute__((always_inline)) void zero_sums() {
  tile_zero<0>();
  tile_zero<1>();
  tile_zero<2>();
  tile_zero<3>();
}

// Sums [32][kTile] in memory, rows `stride` numbers apart.
inline __attribute__((always_inline)) void load_sums(const float* from, int64_t stride = kTile) {
  tile_load<0>(from, stride * 4);
  tile_load<1>(from + LANES, stride * 4);
  tile_load<2>(from + kTileRows * stride, stride * 4);
  tile_load<3>(from + kTileRows * stride + LANES, stride * 4);
}

inline __attribute__((always_inline)) void store_sums(float* to, int64_t stride = kTile) {
  tile_store<0>(to, stride * 4);
  tile_store<1>(to + LANES, stride * 4);
  tile_store<2>(to + kTileRows * stride, stride * 4);
  tile_store<3>(to + kTileRows * stride + LANES, stride * 4);
}

// Compute a product whose result is not used. After about 1,100 cycles without a product the multiplying unit powers
// down, and then takes 600 cycles to start (Xeon, family 6 model 207). Code that computes on vectors for longer than that
// calls this in between. Overwrites register 0.
inline __attribute__((always_inline)) void keep_multiplying() { tile_multiply<0, 4, 6>(); }

// Add the products of 32 numbers per row. rows[32] have 64 bytes each and are `stride` bytes apart; the second 16 begin
// at `further`. The first 16 lanes are pairs [16][LANES], `lane_stride` bytes apart; the others are at `further_lanes`.
// Each load comes just before the first product that needs it: 12 % faster than all loads first.
inline __attribute__((always_inline)) void add_products(const void* rows, const void* further, int64_t stride,
                                                        const uint32_t* lanes, const uint32_t* further_lanes,
                                                        int64_t lane_stride) {
  tile_load<4>(rows, stride);
  tile_load<6>(lanes, lane_stride);
  tile_multiply<0, 4, 6>();
  tile_load<7>(further_lanes, lane_stride);
  tile_multiply<1, 4, 7>();
  tile_load<5>(further, stride);
  tile_multiply<2, 5, 6>();
  tile_multiply<3, 5, 7>();
}

// The same where all pairs are [2][16][LANES], the first 16 lanes before the others.
inline __attribute__((always_inline)) void add_products(const void* rows, const void* further, int64_t stride,
                                                        const uint32_t* lanes) {
  add_products(rows, further, stride, lanes, lanes + kTileNumbers, 64);
}

}  // namespace
}  // namespace clearhead
