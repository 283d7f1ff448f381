// Vectors of LANES numbers, in gcc's portable vector extension, and the few functions of them that attention needs.
// The numbers are floats, or doubles in target_f64.cpp: both run the same algorithm.
// Everything is in an unnamed namespace: a target's object file must have no weak symbol, or the linker could keep the
// AVX-512 copy of a shared function, which would crash on an older CPU. For the same reason nothing here uses std::.
#pragma once
#include "arguments.h"

#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define UNROLL _Pragma("GCC unroll 16")

namespace clearhead {
namespace {

#ifdef DOUBLES
typedef double Real;
typedef int64_t Int;
typedef uint64_t UInt;
constexpr Dtype kReal = kFloat64;
constexpr int kMantissa = 52, kExponents = 1023;  // the mantissa's bits, and the bias of an exponent
#else
typedef float Real;
typedef int32_t Int;
typedef uint32_t UInt;
constexpr Dtype kReal = kFloat32;
constexpr int kMantissa = 23, kExponents = 127;
#endif

constexpr int kBytes = sizeof(Real);
typedef Real Vec __attribute__((vector_size(LANES * kBytes)));
typedef Int VecI __attribute__((vector_size(LANES * kBytes)));
typedef UInt VecU __attribute__((vector_size(LANES * kBytes)));
typedef Real Unaligned __attribute__((vector_size(LANES * kBytes), aligned(kBytes), may_alias));

constexpr Real kInfinity = __builtin_inf();
constexpr Real kLog2E = 1.4426950408889634;
constexpr Real kNothing = -1e37;  // a logit below this counts as -inf
constexpr double kLn2 = 0.6931471805599453, kLog2EWide = 1.4426950408889634;

inline Vec load(const Real* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(Real* to, Vec x) { *reinterpret_cast<Unaligned*>(to) = x; }
inline Vec splat(Real x) { return x - Vec{}; }
inline VecI splat_int(Int x) { return x - VecI{}; }

// Where x is NaN the result is `other`: a NaN must not become the row's maximum; it reaches the sum instead.
inline Vec maximum(Vec x, Vec other) {
#if defined(__AVX512F__)  // gcc 12 compiles the comparison to two instructions where x is a constant
  if constexpr (sizeof(Vec) == 64 && kBytes == 4) return (Vec)_mm512_maskz_max_ps(0xFFFF, (__m512)x, (__m512)other);
  if constexpr (sizeof(Vec) == 64 && kBytes == 8) return (Vec)_mm512_maskz_max_pd(0xFF, (__m512d)x, (__m512d)other);
#endif
  return x > other ? x : other;
}

// For numbers without NaN.
inline Vec minimum(Vec x, Vec other) {
#if defined(__AVX512F__)
  if constexpr (sizeof(Vec) == 64 && kBytes == 4) return (Vec)_mm512_maskz_min_ps(0xFFFF, (__m512)x, (__m512)other);
#endif
  return x < other ? x : other;
}

inline Real total_of(Vec x) {
  Real sum = 0;
  UNROLL for (int i = 0; i < LANES; i++) sum += x[i];
  return sum;
}

inline VecI lane_numbers() {
  VecI n = {};
  for (int i = 0; i < LANES; i++) n[i] = i;
  return n;
}

// Coefficients of (2^f - 1) / f for |f| <= 1/2, highest power first: minimax fits of 2^f whose constant term is 1.
#ifdef DOUBLES
constexpr Real kPower[] = {4.448990763321361e-10,  7.073189669295151e-9,  1.0178099728335211e-7, 1.3215438802211746e-6,
                           1.5252733747386008e-5,  1.540353044990867e-4,  1.3333558146493237e-3, 9.618129107599958e-3,
                           0.05550410866482133,    0.24022650695910117,   0.6931471805599453};
#else
constexpr Real kPower[] = {0.00132647273f, 0.00967151299f, 0.0555073358f, 0.240222424f, 0.693147004f};
#endif

// 2^x in place for x <= kExponents, relative error 1.1e-7 (floats) or 2.3e-16 (doubles); exactly 0 from one half below
// -kExponents and at -inf, exactly 1 at 0, NaN at NaN. x = n + f with |f| <= 1/2. Several vectors are computed together:
// a single one has a latency of 45 cycles, and few iterations fit into a core's reorder window.
template <int N, int Terms>
inline __attribute__((always_inline)) void exp2_by(Vec (&x)[N], const Real (&power)[Terms]) {
  // Adding 1.5 * 2^kMantissa rounds to an integer; kExponents, added too, makes the low bits the exponent of 2^n.
  const Vec low = splat(-kExponents), round = splat(Real(UInt(3) << (kMantissa - 1)) + kExponents);
  Vec t[N], p[N];
  UNROLL for (int i = 0; i < N; i++) x[i] = maximum(low, x[i]);
  UNROLL for (int i = 0; i < N; i++) t[i] = x[i] + round;
  UNROLL for (int i = 0; i < N; i++) x[i] -= t[i] - round;
  UNROLL for (int i = 0; i < N; i++) p[i] = splat(power[0]);
  UNROLL for (int k = 1; k < Terms; k++)
    UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(power[k]);
  UNROLL for (int i = 0; i < N; i++) p[i] = p[i] * x[i] + splat(1);
  UNROLL for (int i = 0; i < N; i++) x[i] = p[i] * (Vec)((VecI)t[i] << kMantissa);
}

template <int N>
inline __attribute__((always_inline)) void exp2_all(Vec (&x)[N]) {
  exp2_by(x, kPower);
}

inline Vec exp2(Vec x) {
  Vec only[1] = {x};
  exp2_all(only);
  return only[0];
}

#ifdef DOUBLES
inline Real tanh(Real x) { return __builtin_tanh(x); }

inline Vec tanh(Vec x) {
  UNROLL for (int i = 0; i < LANES; i++) x[i] = tanh(x[i]);
  return x;
}
#else
inline Real tanh(Real x) { return __builtin_tanhf(x); }

// Absolute error 2e-7 and relative 4e-7: an odd polynomial (Cephes' tanhf) near 0, an exponential elsewhere.
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
#endif

inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace
}  // namespace clearhead
