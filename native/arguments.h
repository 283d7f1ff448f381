// What one attention computation is, in plain C: raw pointers, strides, sizes. Knows neither Python nor torch.
#pragma once
#include <cstddef>
#include <cstdint>

namespace clearhead {

enum Dtype : int32_t { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kFloat64 = 3 };

// Four axes (batch, head, row, column); strides in elements; data is null where there is no such tensor.
struct Tensor {
  void* data = nullptr;
  int64_t batch = 0, head = 0, row = 0, column = 0;
};

// Up to this many queries a head, reading keys once with the lanes along the keys beats tiles with empty lanes.
constexpr int64_t kFewQueries = 8;

struct Attention {
  int64_t batch, heads, kv_heads, length, keys, width, value_width;
  Dtype dtype;                 // of query, key, value, out and their gradients
  Tensor query, key, value;    // any strides
  Tensor out;                  // last axis contiguous
  Tensor lse;                  // column unused; null where forward need not give it
  Dtype lse_dtype;             // float32 or float64; float64 lets backward rebuild float32 weights to the last digit
  double scale;
  int64_t reach_low, reach_high;  // query i may attend key j where reach_low <= j - i <= reach_high
  Tensor allow;                // bytes, 0 = may not attend, or null; strides in bytes, 0 where broadcast
  Tensor bias;                 // added to the logits, or null; stride 0 where broadcast
  Dtype bias_dtype;
  const void* alibi;           // one slope a query head, or null: the logits lose slope * |query + alibi_offset - key|
  int64_t alibi_offset;
  double softcap;              // logits become softcap * tanh(logits / softcap); 0 = off
  const void* sinks;           // one a query head, or null; float64 beside float64, else float32, as the slopes are
  uint32_t seed_low, seed_high, drop_below;  // a weight is dropped where its hash is under drop_below; 0 = off
  double keep_factor;          // what a kept weight is multiplied by
};

struct Backward {
  Tensor grad_out;                         // last axis contiguous
  Tensor grad_lse;                         // of the sinks' dtype, or null
  Tensor grad_query, grad_key, grad_value; // last axis contiguous
  // Of the sinks' dtype, or null where the bias learns nothing; added to what is there. Strides are 0 where the bias broadcasts,
  // but where rows share it (row = 0) every batch and head has a row of its own here, and adds to nothing.
  Tensor grad_bias;
  void *sink_rows, *alibi_rows;  // (B, H, L), of the sinks' dtype, or null: what each query gives to the gradient of its head's sink, slope
};

// What a second pass is to find; null where it is not wanted. Queries first_row .. last_row - 1 are looked at, and keys
// first_key .. last_key - 1.
struct Statistics {
  int64_t first_row, last_row, first_key, last_key;
  float *entropy, *maximum, *squares, *mass;  // (B, H, L), contiguous, as are all below
  float *distance, *spread;                   // (B, H, L): of |query + offset - key|
  int64_t offset;
  float* received;                            // (B, H, S): the column sums are added to what is there
  int64_t top;                                // how many of a row's largest weights, or 0
  float* top_weights;                         // (B, H, L, top), largest first
  int64_t* top_keys;
  int64_t cells_down, cells_across;           // a map's cells, and from which row or key to before which each goes
  const int64_t *row_edges, *key_edges;
  float* map;                                 // (B, H, down, across): sums are added to, maxima joined with what is there
  bool by_maximum;
};

// out = x weightᵀ + bias. Row r of out is query r % length of batch r / length, and its column c is column c % width
// of head c / width: so a projection may write where attention reads.
struct Linear {
  int64_t rows, inputs, outputs, length, width;
  Dtype dtype;       // of all four
  Tensor x, weight;  // (rows, inputs), (outputs, inputs): row and column strides count, any
  Tensor out;        // its column stride is 1
  const void* bias;  // (outputs), contiguous, or null
};

// Both passes in one kind of number, float or double. Every work item may run on any thread; none shares state with
// another. Scratch and sums are counted in such numbers.
template <class Number>
struct Passes {
  size_t (*forward_scratch)(const Attention&, const Statistics* found, int64_t rows);
  // Output and lse of queries first .. first + rows - 1 of one head; and on the way, where `found` is not null, its
  // entropy, maximum, squares, mass and largest weights (of floats alone).
  void (*forward)(const Attention&, const Statistics* found, int64_t batch, int64_t head, int64_t first, int64_t rows,
                  Number* scratch);
  // Few queries: keys first .. last - 1 of one key head, for every query row that shares it, into a partial result of
  // decode_partial() numbers; then the parts of a head are merged into output and lse (value_width numbers of space).
  size_t (*decode_partial)(const Attention&);
  size_t (*decode_scratch)(const Attention&);
  void (*decode)(const Attention&, int64_t batch, int64_t kv_head, int64_t first, int64_t last, Number* partial,
                 Number* scratch);
  void (*decode_merge)(const Attention&, int64_t batch, int64_t kv_head, int64_t parts, const Number* partials,
                       Number* space);
  // Gradients of queries first .. last - 1 of all heads that share one key head. Stores the queries' own gradient;
  // adds that of keys and values to `sums`, key_sums() numbers.
  void (*backward)(const Attention&, const Backward&, int64_t batch, int64_t kv_head, int64_t first, int64_t last,
                   Number* sums, Number* scratch);
  size_t (*backward_scratch)(const Attention&);
  size_t (*key_sums)(const Attention&, const Backward&);
  // Round the sums of one key head into grad_key and grad_value, and into grad_bias where rows share it.
  void (*store_key_sums)(const Attention&, const Backward&, int64_t batch, int64_t kv_head, const Number* sums);
};

// What a compiled target is, for the code that chooses one. Lists are separated by commas.
struct Row {
  const char* name;
  int lanes;            // queries side by side in one tile
  const char* needs;    // CPU features without which it crashes, by gcc's names (cpu.cpp); "" for none
  const char* dtypes;   // what it computes, by torch's names
  const char* flushes;  // the dtypes in whose products denormal numbers count as 0
  bool for_tests;       // never chosen, only asked for by name
};

// One compiled copy of the kernels.
struct Target {
  Row row;
  Passes<float> floats;
  const Passes<double>* doubles;
  // The second pass over queries first .. last - 1 of one head; adds what is summed over queries to `sums`.
  size_t (*statistics_scratch)(const Attention&, const Statistics&);
  size_t (*statistics_sums)(const Attention&, const Statistics&);
  void (*statistics)(const Attention&, const Statistics&, int64_t batch, int64_t head, int64_t first, int64_t last,
                     float* sums, float* scratch);
  // Outputs first .. first + outputs - 1 of rows start .. stop - 1.
  size_t (*linear_scratch)(const Linear&, int64_t outputs);
  void (*linear)(const Linear&, int64_t first, int64_t outputs, int64_t start, int64_t stop, float* scratch);
  // Output and lse of queries first .. first + rows - 1 of one head, and into `weights`, (B, H, L, S), their weights; or,
  // where its heads have stride 0, output and lse of all heads, and the mean of their weights.
  size_t (*weights_scratch)(const Attention&, int64_t rows);
  void (*weights)(const Attention&, const Tensor& weights, int64_t batch, int64_t head, int64_t first, int64_t rows,
                  float* scratch);
  // Arithmetic on registers alone, to measure the peak; returns the floating-point operations done.
  double (*multiply_adds)(int64_t steps);
};

}  // namespace clearhead
