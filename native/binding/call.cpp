#include "binding/call.h"

namespace clearhead {

namespace {

// A mask broadcast to (B, H, L, S), by strides of 0; returns false where it does not fit.
bool broadcast(const View& mask, const int64_t (&full)[4], Tensor* to) {
  *to = mask.tensor;
  int64_t* const strides[] = {&to->batch, &to->head, &to->row, &to->column};
  for (int i = 0; i < 4; i++) {
    if (mask.sizes[i] == 1) *strides[i] = 0;
    else if (mask.sizes[i] != full[i]) return false;
  }
  return mask.axes >= 2;
}

// Whether the last axis is contiguous and no other is: torch's kernel writes out of bounds for overlapping windows.
bool in_rows(const View& v) {
  const int64_t strides[] = {v.tensor.batch, v.tensor.head, v.tensor.row};
  for (int i = 0; i < 3; i++)
    if (strides[i] == 1 && v.sizes[i] > 1 && v.sizes[3] > 1) return false;
  return v.tensor.column == 1;
}

}  // namespace

FastPath describe(const View& q, const View& k, const View& v, const View* mask, bool grouped, Attention* p) {
  if (q.kind > kFloat64 || k.kind != q.kind || v.kind != q.kind) return kNone;
  if (q.axes < (grouped ? 4 : 2) || k.axes != q.axes || v.axes != q.axes) return kNone;
  const auto [batch, heads, length, width] = q.sizes;
  const int64_t kv_heads = k.sizes[1], keys = k.sizes[2], value_width = v.sizes[3];
  for (int64_t size : {batch, heads, length, width, kv_heads, keys, value_width})
    if (size == 0) return kNone;
  if (k.sizes[3] != width || v.sizes[2] != keys || v.sizes[1] != kv_heads) return kNone;
  if (heads % kv_heads != 0 || !(grouped || kv_heads == heads || kv_heads == 1)) return kNone;
  for (const View* const x : {&k, &v})
    if (x->sizes[0] != batch && x->sizes[0] != 1) return kNone;
  p->batch = batch;
  p->heads = heads;
  p->kv_heads = kv_heads;
  p->length = length;
  p->keys = keys;
  p->width = width;
  p->value_width = value_width;
  p->dtype = static_cast<Dtype>(q.kind);
  p->query = q.tensor;
  p->key = k.tensor;
  p->value = v.tensor;
  if (k.sizes[0] != batch) p->key.batch = 0;
  if (v.sizes[0] != batch) p->value.batch = 0;
  if (mask) {
    if (mask->axes > q.axes) return kNone;
    if (mask->kind != kBool && mask->kind != q.kind && !(mask->kind == kFloat32 && q.kind != kFloat64)) return kNone;
    if (!broadcast(*mask, {batch, heads, length, keys}, mask->kind == kBool ? &p->allow : &p->bias)) return kNone;
    p->bias_dtype = static_cast<Dtype>(mask->kind);
  }
  const bool shared = k.sizes[0] != batch || v.sizes[0] != batch || !(grouped || kv_heads == heads);
  if (shared) return kForward;
  const bool whole = q.axes == 4 && value_width == width && in_rows(q) && in_rows(k) && in_rows(v);
  return whole ? kTorchReads : kDifferentiable;
}

void write_lse(const View& lse, Attention* p) {  // its axes were moved to the back
  p->lse = {lse.tensor.data, lse.tensor.head, lse.tensor.row, lse.tensor.column, 0};
  p->lse_dtype = static_cast<Dtype>(lse.kind);
}

}  // namespace clearhead
