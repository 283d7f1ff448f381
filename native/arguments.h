// The arguments of the kernels in plain C: raw pointers, strides and sizes, without Python or torch.
#pragma once
#include <cstddef>
#include <cstdint>

namespace clearhead {

enum Dtype : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// Four axes (batch, head, row, column) with strides in elements; data is null if the tensor is absent.
struct Tensor {
  void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 0;
};

// Up to this many queries per head, it is faster to read the keys once, with the lanes along the columns, than to use tiles
// with empty lanes.
constexpr int64_t kFewQueries = 8;

constexpr int64_t kTiledKeys = 32;  // keys packed together for tile registers

// A band without limits: longer than any sequence.
constexpr int64_t kUnbounded = int64_t(1) << 40;

// The fields of each struct below, as a table of X(type, name, default), from which binding/binding.cpp also makes Python
// attributes. Apart from sizes, dtypes, inputs and outputs, the fields of an attention have the names that
// clearhead/spec/attention.py gives them.
#define CLEARHEAD_FIELD(type, name, value) type name = value;

// One number per query head, or null: float64 if the tensors are float64, else float32.
typedef const void* PerHead;

#define CLEARHEAD_ATTENTION(X)                                                                                    \
  X(int64_t, batch, 0) X(int64_t, heads, 0) X(int64_t, kv_heads, 0) X(int64_t, length, 0) X(int64_t, keys, 0)     \
  X(int64_t, width, 0) X(int64_t, value_width, 0)                                                                 \
  X(Dtype, dtype, kFloat32) /* of query, key, value, out and their gradients */                                   \
  X(Tensor, query, {}) X(Tensor, key, {}) X(Tensor, value, {}) /* any strides */                                  \
  X(Tensor, out, {}) /* last axis contiguous */                                                                   \
  X(Tensor, lse, {}) /* column unused; null where forward need not store it */                                    \
  X(Dtype, lse_dtype, kFloat32) /* float64 lets backward rebuild float32 weights to the last digit */             \
  X(int32_t, pieces, 0) /* bfloat16 numbers that tile registers take a float32 for: 1 to 3, 0 = not on tiles */   \
  X(double, scale, 1)                                                                                             \
  X(PerHead, head_scale, nullptr) /* multiplies the scale */                                                      \
  X(int64_t, band_low, -kUnbounded) /* limits on key position - query position */                                 \
  X(int64_t, band_high, kUnbounded)                                                                               \
  X(Tensor, allow, {}) /* bytes, 0 = may not attend, or null; strides in bytes, 0 where broadcast */              \
  X(Tensor, bias, {}) /* added to the logits, or null; stride 0 where broadcast */                                \
  X(Dtype, bias_dtype, kFloat32)                                                                                  \
  X(PerHead, alibi, nullptr) /* the logits lose slope * |query position - key position| */                        \
  X(double, softcap, 0) /* logits become softcap * tanh(logits / softcap); 0 = off */                             \
  X(PerHead, sinks, nullptr) /* logits without a key */                                                           \
  X(double, dropout_p, 0) /* the probability that a weight is dropped */                                          \
  X(uint64_t, seed, 0)                                                                                            \
  X(int64_t, first_query, 0) X(int64_t, first_key, 0) /* the positions of query 0 and of key 0 */

struct Attention {
  CLEARHEAD_ATTENTION(CLEARHEAD_FIELD)
};

// Gradients. The gradient of a bias has the sinks' dtype, or is null if the bias needs none; it is added to the tensor's
// contents. Its strides are 0 where the bias broadcasts. But if rows share the bias (row = 0), every batch entry and head
// has its own row, of zeros.
#define CLEARHEAD_GRADIENTS(X)                                                                                    \
  X(Tensor, grad_out, {}) /* last axis contiguous */                                                              \
  X(Tensor, grad_lse, {}) /* of the sinks' dtype, or null */                                                      \
  X(Tensor, grad_query, {}) X(Tensor, grad_key, {}) X(Tensor, grad_value, {}) /* last axis contiguous */          \
  X(Tensor, grad_bias, {})                                                                                        \
  /* (B, H, L), of the sinks' dtype, or null: each query's share in the gradients of its head's numbers */        \
  X(void*, sinks_rows, nullptr) X(void*, alibi_rows, nullptr) X(void*, head_scale_rows, nullptr)

struct Gradients {
  CLEARHEAD_GRADIENTS(CLEARHEAD_FIELD)
};

// What a second pass computes, over queries first_row .. last_row - 1 and keys first_key .. last_key - 1. Outputs that
// are not wanted are null.
#define CLEARHEAD_STATISTICS(X)                                                                                   \
  X(int64_t, first_row, 0) X(int64_t, last_row, 0) X(int64_t, first_key, 0) X(int64_t, last_key, 0)               \
  X(float*, entropy, nullptr) X(float*, maximum, nullptr) /* (B, H, L), contiguous, as are all below */           \
  X(float*, squares, nullptr) X(float*, mass, nullptr)                                                            \
  X(float*, distance, nullptr) X(float*, spread, nullptr) /* (B, H, L): of |query + offset - key| */              \
  X(int64_t, offset, 0)                                                                                           \
  X(float*, received, nullptr) /* (B, H, S): the column sums are added to what is there */                        \
  X(int64_t, top, 0) /* how many of a row's largest weights, or 0 */                                              \
  X(float*, top_weights, nullptr) X(int64_t*, top_keys, nullptr) /* (B, H, L, top), largest first */              \
  X(int64_t, cells_down, 0) X(int64_t, cells_across, 0)                                                           \
  X(const int64_t*, row_edges, nullptr) X(const int64_t*, key_edges, nullptr) /* a cell's first and past its last */ \
  X(float*, map, nullptr) /* (B, H, down, across): sums are added to, maxima joined with what is there */         \
  X(bool, by_maximum, false)

struct Statistics {
  CLEARHEAD_STATISTICS(CLEARHEAD_FIELD)
};

// out = x weightᵀ + bias. Row r of out is query r % length of batch r / length, and its column c is column c % width
// of head c / width, so that a projection can write to where attention reads.
#define CLEARHEAD_LINEAR(X)                                                                                       \
  X(int64_t, rows, 0) X(int64_t, inputs, 0) X(int64_t, outputs, 0) X(int64_t, length, 1) X(int64_t, width, 1)     \
  X(Dtype, dtype, kFloat32) /* of all four */                                                                     \
  X(Tensor, x, {}) X(Tensor, weight, {}) /* (rows, inputs), (outputs, inputs): any row and column strides */      \
  X(Tensor, out, {}) /* its column stride is 1 */                                                                 \
  X(const void*, bias, nullptr) /* (outputs), contiguous, or null */

struct Linear {
  CLEARHEAD_LINEAR(CLEARHEAD_FIELD)
};

// Both passes for one type of number, float or double. Work items share no state, and each may run on any thread.
// Scratch and sums are counted in these numbers.
template <class Number>
struct Passes {
  size_t (*forward_scratch)(const Attention&, const Statistics* statistics, int64_t rows);
  // Where forward() does not read keys and values in place, it reads packed ones. tiled_keys() is their size for one key
  // head, in numbers; tile_keys() packs blocks first .. last - 1 of kTiledKeys keys.
  size_t (*tiled_keys)(const Attention&);
  void (*tile_keys)(const Attention&, int64_t batch, int64_t kv_head, int64_t first, int64_t last, Number* tiled);
  // Output and lse of queries first .. first + rows - 1 of one head. If `statistics` is not null, also its entropy,
  // maximum, squares, mass and largest weights (floats only). `tiled` are the head's packed keys, from tile_keys().
  void (*forward)(const Attention&, const Statistics* statistics, int64_t batch, int64_t head, int64_t first, int64_t rows,
                  const Number* tiled, Number* scratch);
  // For few queries. decode() attends keys first .. last - 1 of one key head, for every query row that shares it, and
  // stores a partial result of decode_partial() numbers. decode_merge() merges the parts of a head, which lie `each` numbers
  // apart, into output and lse; its `space` is as large as a scratch.
  size_t (*decode_partial)(const Attention&);
  size_t (*decode_scratch)(const Attention&);
  void (*decode)(const Attention&, int64_t batch, int64_t kv_head, int64_t first, int64_t last, Number* partial,
                 Number* scratch);
  void (*decode_merge)(const Attention&, int64_t batch, int64_t kv_head, int64_t parts, const Number* partials,
                       int64_t each, Number* space);
  // Gradients of queries first .. last - 1 of all heads that share one key head. Stores the gradient of the queries;
  // adds that of keys and values to `sums`, key_sums() numbers; for few queries there are none, and it is stored too.
  void (*backward)(const Attention&, const Gradients&, int64_t batch, int64_t kv_head, int64_t first, int64_t last,
                   Number* sums, Number* scratch);
  size_t (*backward_scratch)(const Attention&);
  size_t (*key_sums)(const Attention&, const Gradients&);
  // Round the sums of one key head into grad_key and grad_value, and into grad_bias where rows share it.
  void (*store_key_sums)(const Attention&, const Gradients&, int64_t batch, int64_t kv_head, const Number* sums);
};

// The description of a compiled target, for the code that chooses one. Lists are separated by commas.
struct Row {
  const char* name;
  int lanes;            // queries side by side in one tile
  const char* needs;    // CPU features that it requires, by gcc's names (cpu.cpp); "" for none
  const char* dtypes;   // the dtypes it computes, by torch's names
  const char* flushes;  // the dtypes in whose products denormal numbers count as 0
  bool for_tests;       // never chosen, only used by name
};

// One compiled copy of the kernels.
struct Target {
  Row row;
  Passes<float> floats;
  const Passes<double>* doubles;
  // The second pass over queries first .. last - 1 of one head; adds the sums over queries to `sums`.
  size_t (*statistics_scratch)(const Attention&, const Statistics&);
  size_t (*statistics_sums)(const Attention&, const Statistics&);
  void (*statistics)(const Attention&, const Statistics&, int64_t batch, int64_t head, int64_t first, int64_t last,
                     float* sums, float* scratch);
  // Outputs first .. first + outputs - 1 of rows start .. stop - 1.
  size_t (*linear_scratch)(const Linear&, int64_t outputs);
  void (*linear)(const Linear&, int64_t first, int64_t outputs, int64_t start, int64_t stop, float* scratch);
  // As forward(), and the weights in `weights`, (B, H, L, S). If `weights` has head stride 0: all of it for all heads, and
  // the mean of their weights.
  size_t (*weights_scratch)(const Attention&, const Statistics* statistics, int64_t rows);
  void (*weights)(const Attention&, const Statistics* statistics, const Tensor& weights, int64_t batch, int64_t head,
                  int64_t first, int64_t rows, float* scratch);
  // Arithmetic on registers only, to measure the peak; returns the floating-point operations done.
  double (*multiply_adds)(int64_t steps);
};

}  // namespace clearhead
