#include "binding/override/our_kernels.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "binding/call.h"
#include "dispatch/dispatch.h"

namespace clearhead {

namespace {

int target_of[kFloat64 + 1] = {-1, -1, -1, -1};

constexpr int kByRows[] = {0, 2, 1, 3};  // axes (B, H, L, D), from the outermost in memory to the innermost: (B, L, H, D)

// New tensors, whose handles are deleted unless they are given away.
class Results {
 public:
  ~Results() {
    for (int i = 0; i < count_; i++) torch.delete_tensor(handles_[i]);
  }
  View add(int axes, const int64_t* sizes, const int* order, int kind) {
    View view;
    handles_[count_] = empty(axes, sizes, order, kind, &view);
    count_++;
    return view;
  }
  void give(Handle* to) { std::copy_n(handles_, std::exchange(count_, 0), to); }

 private:
  Handle handles_[3];
  int count_ = 0;
};

bool describe(const OperatorCall& call, View* query, Attention* p) {
  View key, value, mask;
  const Handle* const inputs = call.inputs();
  if (!look(inputs[0], query) || !look(inputs[1], &key) || !look(inputs[2], &value)) return false;
  if (call.mask && (!look(call.mask, &mask) || call.is_causal)) return false;
  if (describe(*query, key, value, call.mask ? &mask : nullptr, true, p) < kDifferentiable) return false;
  if (p->value_width != p->width) return false;
  if (call.is_causal) p->band_high = 0;
  p->scale = call.has_scale ? call.scale : std::pow(double(p->width), -0.5);
  return true;
}

int lse_kind(int dtype) { return dtype == kFloat64 ? kFloat64 : kFloat32; }

bool same_rows(const View& x, const View& like) {
  return x.kind == like.kind && x.axes == 4 && std::equal(x.sizes, x.sizes + 4, like.sizes) && x.tensor.column == 1;
}

// Whether what the forward pass saved, and the gradient that comes in, fit the query: they may come from elsewhere.
bool fit(const OperatorCall& call, const View& query, const Attention& p) {
  View grad_out, out, lse;
  if (!look(call.tensors[0], &grad_out) || !look(call.tensors[4], &out) || !look(call.tensors[5], &lse)) return false;
  if (!same_rows(query, query) || !same_rows(grad_out, query) || !same_rows(out, query)) return false;
  if (p.key.column != 1 || p.value.column != 1) return false;
  return lse.axes == 3 && lse.kind == lse_kind(p.dtype) && std::equal(lse.sizes + 1, lse.sizes + 4, query.sizes);
}

int num_threads() {
  uint32_t threads = 1;
  torch.get_num_threads(&threads);
  return int(threads);
}

// The axes of an output that is laid out as the query is, with the numbers of each row side by side; (B, H, L, D) if rows of
// the query share memory.
void order_as(const View& query, int (&order)[4]) {
  const int64_t strides[] = {query.tensor.batch, query.tensor.head, query.tensor.row};
  for (int i = 0; i < 4; i++) order[i] = i;
  for (int i = 0; i < 3; i++)
    if (strides[i] == 0 && query.sizes[i] > 1) return;
  std::stable_sort(order, order + 3, [&](int a, int b) { return strides[a] > strides[b]; });
}

template <class Number>
void forget_empty_rows(Number* lse, int64_t rows) {
  std::replace(lse, lse + rows, Number(-INFINITY), Number(0));
}

void forward(const OperatorCall& call, Attention& p, const View& query, Results* results) {
  int order[4];
  order_as(query, order);
  p.out = results->add(4, query.sizes, order, p.dtype).tensor;
  const View lse = results->add(3, query.sizes, kByRows, lse_kind(p.dtype));
  write_lse(lse, &p);
  run_forward(target_at(target_of[p.dtype]), p, num_threads());
  if (!call.mask) return;
  const int64_t rows = p.batch * p.heads * p.length;
  if (lse.kind == kFloat64) forget_empty_rows(static_cast<double*>(lse.tensor.data), rows);
  else forget_empty_rows(static_cast<float*>(lse.tensor.data), rows);
}

void backward(const OperatorCall& call, Attention& p, Results* results) {
  View grad_out, out, lse, input;
  look(call.tensors[0], &grad_out);
  look(call.tensors[4], &out);
  look(call.tensors[5], &lse);
  p.out = out.tensor;
  write_lse(lse, &p);
  Gradients g;
  g.grad_out = grad_out.tensor;
  Tensor* const grads[] = {&g.grad_query, &g.grad_key, &g.grad_value};
  for (int i = 0; i < 3; i++) {
    look(call.inputs()[i], &input);
    *grads[i] = results->add(4, input.sizes, kByRows, p.dtype).tensor;
  }
  run_backward(target_at(target_of[p.dtype]), p, g, num_threads());
}

}  // namespace

void set_targets(const int (&targets)[kFloat64 + 1]) { std::copy(targets, targets + kFloat64 + 1, target_of); }

bool can_compute(const OperatorCall& call) {
  View query;
  Attention p;
  if (call.dropout != 0 || !describe(call, &query, &p) || target_of[p.dtype] < 0) return false;
  return !call.is_backward() || (!call.mask && fit(call, query, p));  // Python tells empty rows of a mask from others
}

void compute(const OperatorCall& call, Handle* to) {
  View query;
  Attention p;
  describe(call, &query, &p);
  Results results;
  if (call.is_backward()) backward(call, p, &results);
  else forward(call, p, query, &results);
  results.give(to);
}

}  // namespace clearhead
