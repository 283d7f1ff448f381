// Scratch of the backward pass: what a block of queries keeps from one block of keys to the next.
#pragma once
#include "passes/logits.h"
#include "vector/product.h"

namespace clearhead {
namespace {

constexpr int64_t kRows = 64;  // queries in one block at most; a multiple of kTile for every target
constexpr int64_t kBackKeys = 64 / ROWS * ROWS;
static_assert(kRows % kTile == 0, "a block of queries is whole tiles");

inline int64_t padded(int64_t width) { return round_up(width, kTile); }

// The lanes that a block's queries use: whole tiles.
inline int64_t lanes_of(int64_t rows) { return round_up(rows, kTile); }

// Whether queries are so few that the backward pass computes them row by row (few.h): a tile would be half empty.
// Up to three quarters of one this is faster, 1.1 to 2 times (bench/LOG.md). It computes the lse again, so that it may follow
// either forward pass, but must see all keys of a row (takes_some_keys in kernel.py). Tile registers were not compared.
constexpr int64_t kFewGradients = kTile >= 32 ? 2 * kFewQueries : kTile >= 16 ? kFewQueries * 3 / 2 : kFewQueries;

inline bool few_queries(const Attention& p) {
#ifdef TILES
  if (p.dtype == kBFloat16) return p.length <= kFewQueries;
#endif
  return p.length <= kFewGradients;
}

// Whether the bias has one number per key, shared by all queries. Its gradient is then a sum over queries, as those of
// keys and values are.
inline bool bias_of_keys(const Gradients& g) { return g.grad_bias.data && g.grad_bias.row == 0; }

// The number of rows of dK and dV; tile registers add to whole blocks.
inline int64_t key_rows(const Attention& p) {
#ifdef TILES
  if (p.dtype == kBFloat16) return round_up(p.keys, kTiledKeys);
#endif
  return p.keys;
}

// What one key head sums over queries: dK, dV, and for each of its query heads the gradient of a bias of keys.
inline int64_t numbers_of_keys(const Attention& p) { return key_rows(p) * (padded(p.width) + padded(p.value_width)); }

inline size_t key_sums(const Attention& p, const Gradients& g) {
  if (few_queries(p)) return 0;
  return numbers_of_keys(p) + (bias_of_keys(g) ? p.heads / p.kv_heads * p.keys : 0);
}

constexpr int64_t kWholeKeys = (kBackKeys + LANES - 1) / LANES * LANES;  // a block of keys in whole squares

// There is space for kRows queries; a last block with fewer packs its numbers more closely.
struct BackwardScratch {
  int64_t lanes;                                             // of this block
  Real *query_lanes, *query_rows, *grad_lanes, *grad_rows;  // Q and dO, as [c][lanes] and as [i][padded]
  Real *grad_query;                                         // [width][lanes]
  Real *lse, *lse_rest;                                     // [lanes], in units of log2: the sum of both is the lse
  Real *delta, *distance_sums;                                   // [lanes]; distance_sums: sums of dS * distance
  Real *weights, *slopes, *cap_slopes;                      // [kBackKeys][lanes]: P, dS
  Real* space;                                              // [kBackKeys][lanes]
  Real *key_space, *value_space, *row_space;
};

inline BackwardScratch carve(const Attention& p, Real* at, size_t* total) {
  Real* const begin = at;
  BackwardScratch s;
  const auto take = [&at](int64_t n) { Real* here = at; at += round_up(n, 16); return here; };
  s.query_lanes = take(p.width * kRows);
  s.query_rows = take(padded(p.width) * kRows);
  s.grad_lanes = take(p.value_width * kRows);
  s.grad_rows = take(padded(p.value_width) * kRows);
  s.grad_query = take(padded(p.width) * kRows);
  s.lse = take(kRows);
  s.lse_rest = take(kRows);
  s.delta = take(kRows);
  s.distance_sums = take(kRows);
  const int64_t cells = kWholeKeys * kRows;
  s.weights = take(cells);
  s.slopes = take(cells);
  s.cap_slopes = take(p.softcap != 0 ? cells : 0);
  s.space = take(kWholeKeys * kRows);
  s.key_space = take(kBackKeys * p.width);
  s.value_space = take(kBackKeys * p.value_width);
  s.row_space = take(transpose_scratch(larger(p.width, p.value_width)));
  *total = at - begin;
  return s;
}

// How many numbers a scratch takes that `carve` lays out.
template <class Carve>
inline size_t size_of_scratch(const Attention& p, const Carve& carve) {
  size_t total;
  Real nothing;
  carve(p, &nothing, &total);
  return total;
}

// Store the lse as two numbers: one float of a few hundred would give the weights an error of 1e-5.
inline void set_lse(const BackwardScratch& s, int64_t lane, double lse) {
  s.lse[lane] = Real(lse);
  s.lse_rest[lane] = Real(lse - s.lse[lane]);
}

}  // namespace
}  // namespace clearhead
