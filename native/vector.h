// Vectors of LANES floats, in gcc's portable vector extension, and the few functions of them that attention needs.
// Everything sits in an unnamed namespace: a target's object file must hold no weak symbol, or the linker could keep
// the AVX-512 copy of a shared function and crash an older machine. For the same reason nothing of std:: is used here.
#pragma once
#include "arguments.h"

#define UNROLL _Pragma("GCC unroll 16")

namespace clearhead {
namespace {

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t VecI __attribute__((vector_size(LANES * 4)));
typedef uint32_t VecU __attribute__((vector_size(LANES * 4)));
typedef float Unaligned __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

constexpr float kInfinity = __builtin_inff();
constexpr float kLog2E = 1.4426950408889634f;
constexpr double kLn2 = 0.6931471805599453, kLog2EWide = 1.4426950408889634;

inline Vec load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vec x) { *reinterpret_cast<Unaligned*>(to) = x; }
inline Vec splat(float x) { return x - Vec{}; }
inline VecI splat_int(int32_t x) { return x - VecI{}; }

// Where x is NaN the answer is `other`: a NaN must not become the row's maximum, it shows in the sum instead.
inline Vec maximum(Vec x, Vec other) { return x > other ? x : other; }

inline float total_of(Vec x) {
  float sum = 0;
  UNROLL for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

inline VecI lane_numbers() {
  VecI n = {};
  for (int i = 0; i < LANES; i++) n[i] = i;
  return n;
}

// 2^x in place for x <= 127, relative error 1.1e-7; exactly 0 below -126.5 and at -inf, exactly 1 at 0, NaN at NaN.
// x = n + f with |f| <= 1/2; the polynomial is a minimax fit of 2^f with constant term 1. Several vectors go side by
// side, for one alone waits 45 cycles for itself, and few fit into what a core looks ahead.
template <int N>
inline __attribute__((always_inline)) void exp2_all(Vec (&x)[N]) {
  // Adding 1.5 * 2^23 rounds to an integer; the 127 more make the low bits 2^n's exponent.
  const Vec low = splat(-127.0f), round = splat(12582912.0f + 127.0f);
  Vec t[N], p[N];
  UNROLL for (int i = 0; i < N; i++) x[i] = maximum(low, x[i]);
  UNROLL for (int i = 0; i < N; i++) t[i] = x[i] + round;
  UNROLL for (int i = 0; i < N; i++) x[i] -= t[i] - round;
  UNROLL for (int i = 0; i < N; i++) p[i] = splat(0.00132647273f) * x[i] + splat(0.00967151299f);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(0.0555073358f);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(0.240222424f);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(0.693147004f);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(1.0f);
  UNROLL for (int i = 0; i < N; i++) x[i] = p[i] * (Vec)((VecI)t[i] << 23);
}

inline Vec exp2(Vec x) {
  Vec only[1] = {x};
  exp2_all(only);
  return only[0];
}

// tanh(x), absolute error 2e-7 and relative 4e-7: an odd polynomial (Cephes' tanhf) near 0, an exponential elsewhere.
inline Vec tanh(Vec x) {
  const Vec size = x < splat(0.0f) ? -x : x;
  const Vec z = x * x;
  Vec p = splat(-5.70498872745e-3f) * z + splat(2.06390887954e-2f);
  p = p * z + splat(-5.37397155531e-2f);
  p = p * z + splat(1.33314422036e-1f);
  p = p * z + splat(-3.33332819422e-1f);
  const Vec near = p * z * x + x;
  const Vec e = exp2(size * splat(-2 * kLog2E));
  const Vec far = (splat(1.0f) - e) / (splat(1.0f) + e);
  return size < splat(0.625f) ? near : x < splat(0.0f) ? -far : far;
}

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace
}  // namespace clearhead
