// The short way in: a call on plain tensors, which are read through DLPack's C interface in some 50 ns each. Asking
// them from Python for address, strides, dtype and all that must hold takes longer than a small attention does.
#include "plain.h"

#include "dispatch.h"
#include "dlpack.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

PyTypeObject* tensor_type = nullptr;
const dlpack::Exchange* exchange = nullptr;

// Beyond the dtypes of the kernels: those that torch's own kernel computes, and that of masks.
enum Kind { kFloat64 = 3, kBool = 4, kOther = 5 };

// One tensor: its numbers, the sizes of its last four axes, and its dtype, a Dtype or a Kind.
struct View {
  Tensor tensor;
  int64_t axes, sizes[4];
  int kind;
};

int kind_of(const dlpack::Tensor& t) {
  switch (t.code << 16 | t.bits << 8 | t.lanes) {
    case dlpack::kFloat << 16 | 32 << 8 | 1: return kFloat32;
    case dlpack::kBFloat << 16 | 16 << 8 | 1: return kBFloat16;
    case dlpack::kFloat << 16 | 16 << 8 | 1: return kFloat16;
    case dlpack::kFloat << 16 | 64 << 8 | 1: return kFloat64;
    case dlpack::kBool << 16 | 8 << 8 | 1: return kBool;
    default: return kOther;
  }
}

bool is_negated(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  const nb::object answer = nb::steal(PyObject_CallMethodNoArgs(object, name));
  if (!answer.is_valid()) PyErr_Clear();
  return answer.ptr() != Py_False;
}

// A tensor of torch's own class in the CPU's memory, with up to four axes; false for all else, a view of memory that
// holds the negatives of the tensor's numbers among it. Axes it lacks in front have size 1 and stride 0.
bool read(nb::handle object, View* view) {
  dlpack::Tensor t;
  if (Py_TYPE(object.ptr()) != tensor_type) return false;
  if (exchange->look(object.ptr(), &t) != 0) {
    PyErr_Clear();
    return false;
  }
  if (t.device != 1 || t.axes > 4 || !t.strides || is_negated(object.ptr())) return false;
  int64_t strides[4] = {};
  for (int64_t& size : view->sizes) size = 1;
  for (int32_t i = 0; i < t.axes; i++) {
    view->sizes[4 - t.axes + i] = t.sizes[i];
    strides[4 - t.axes + i] = t.strides[i];
  }
  view->axes = t.axes;
  view->kind = kind_of(t);
  view->tensor = {static_cast<char*>(t.data) + t.byte_offset, strides[0], strides[1], strides[2], strides[3]};
  return true;
}

View must_read(nb::handle object) {
  View view;
  if (!read(object, &view)) throw nb::type_error("not a plain tensor");
  return view;
}

bool same_sizes(const View& a, const View& b) {
  for (int i = 0; i < 4; i++)
    if (a.sizes[i] != b.sizes[i]) return false;
  return true;
}

// Spread a mask to (B, H, L, S), by strides of 0; false where it does not fit.
bool spread(View* mask, const int64_t (&full)[4]) {
  int64_t* const strides[] = {&mask->tensor.batch, &mask->tensor.head, &mask->tensor.row, &mask->tensor.column};
  for (int i = 0; i < 4; i++) {
    if (mask->sizes[i] == 1) *strides[i] = 0;
    else if (mask->sizes[i] != full[i]) return false;
    mask->sizes[i] = full[i];
  }
  return mask->axes >= 2;
}

struct Call {
  Attention p = {};
  View query, key, value, mask;
  bool masked = false;
};

// Query (B, H, L, D), key and value (B, H, S, D) of one dtype, their last axes contiguous, none of them empty, and a
// mask that spreads to (B, H, L, S), bool or of their dtype. False for all else.
bool describe(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, Call* call) {
  View &q = call->query, &k = call->key, &v = call->value, &m = call->mask;
  if (!read(query, &q) || !read(key, &k) || !read(value, &v)) return false;
  if (q.kind > kFloat64 || k.kind != q.kind || v.kind != q.kind) return false;
  if (q.axes != 4 || k.axes != 4 || !same_sizes(k, v) || k.axes != v.axes) return false;
  if (q.tensor.column != 1 || k.tensor.column != 1 || v.tensor.column != 1) return false;
  for (const int i : {0, 1, 3})
    if (q.sizes[i] != k.sizes[i]) return false;
  const auto [batch, heads, length, width] = q.sizes;
  const int64_t keys = k.sizes[2];
  if (batch * heads * length * width == 0 || keys == 0) return false;
  Attention& p = call->p;
  p.batch = batch;
  p.heads = p.kv_heads = heads;
  p.length = length;
  p.keys = keys;
  p.width = p.value_width = width;
  p.dtype = static_cast<Dtype>(q.kind);
  p.query = q.tensor;
  p.key = k.tensor;
  p.value = v.tensor;
  p.keep_factor = 1;
  if (mask.is_none()) return true;
  call->masked = true;
  if (!read(mask, &m) || (m.kind != kBool && m.kind != q.kind)) return false;
  if (!spread(&m, {batch, heads, length, keys})) return false;
  (m.kind == kBool ? p.allow : p.bias) = m.tensor;
  p.bias_dtype = p.dtype;
  return true;
}

// The attention that a call asks for, into `out` and, where it is given, `lse`.
Attention attention(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool is_causal, double scale,
                    nb::handle out, nb::handle lse) {
  Call call;
  if (!describe(query, key, value, mask, &call) || call.query.kind >= kFloat64) throw nb::type_error("not a plain call");
  Attention& p = call.p;
  constexpr int64_t kUnbounded = int64_t(1) << 40;  // a reach no sequence attains
  p.reach_low = -kUnbounded;
  p.reach_high = is_causal ? 0 : kUnbounded;
  p.scale = float(scale);
  p.out = must_read(out).tensor;
  if (lse.is_none()) return p;
  const Tensor l = must_read(lse).tensor;  // (B, H, L): its axes were moved to the back
  p.lse = {l.data, l.head, l.row, l.column, 0};
  return p;
}

// What says "may not attend", as bits: False, or -inf.
uint64_t blocked(int kind) {
  switch (kind) {
    case kFloat32: return 0xFF80'0000;
    case kBFloat16: return 0xFF80;
    case kFloat16: return 0xFC00;
    case kFloat64: return 0xFFF0'0000'0000'0000;
    default: return 0;
  }
}

int bytes_of(int kind) { return kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : kind == kBool ? 1 : 2; }

uint64_t first_bits(const View& view) {
  const void* const at = view.tensor.data;
  switch (bytes_of(view.kind)) {
    case 2: return *static_cast<const uint16_t*>(at);
    case 4: return *static_cast<const uint32_t*>(at);
    default: return *static_cast<const uint64_t*>(at);
  }
}

}  // namespace

void bind_plain(nb::module_& m) {
  m.def("meet", [](nb::handle type, nb::handle api) {
    if (!PyCapsule_IsValid(api.ptr(), "dlpack_exchange_api")) return false;
    exchange = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(api.ptr(), "dlpack_exchange_api"));
    tensor_type = reinterpret_cast<PyTypeObject*>(type.ptr());
    return exchange->major == 1;
  }, nb::arg(), nb::arg().none(),
     "Be told torch.Tensor and its __dlpack_c_exchange_api__, before all else here; false where that is of no use.");

  m.def("is_plain", [](nb::handle query, nb::handle key, nb::handle value, nb::handle mask) {
    Call call;
    return describe(query, key, value, mask, &call);
  }, nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none());

  m.def("attend_plainly", [](int target, int threads, nb::handle query, nb::handle key, nb::handle value,
                             nb::handle mask, bool is_causal, double scale, nb::handle out, nb::handle lse) {
    const Attention p = attention(query, key, value, mask, is_causal, scale, out, lse);
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_forward(t, p, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
     nb::arg().none());

  m.def("gradients_plainly", [](int target, int threads, nb::handle query, nb::handle key, nb::handle value,
                                nb::handle mask, bool is_causal, double scale, nb::handle out, nb::handle lse,
                                nb::handle grad_out, nb::handle grad_query, nb::handle grad_key, nb::handle grad_value) {
    const Attention p = attention(query, key, value, mask, is_causal, scale, out, lse);
    Backward g = {};
    g.grad_out = must_read(grad_out).tensor;
    g.grad_query = must_read(grad_query).tensor;
    g.grad_key = must_read(grad_key).tensor;
    g.grad_value = must_read(grad_value).tensor;
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_backward(t, p, g, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
     nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());

  m.def("leaves_a_row_nothing", [](nb::handle query, nb::handle key, nb::handle value, nb::handle mask) {
    Call call;
    if (!describe(query, key, value, mask, &call)) throw nb::type_error("not a plain call");
    const View& v = call.mask;
    if (!call.masked) return false;
    nb::gil_scoped_release unlocked;
    return has_empty_row(v.tensor, v.sizes, bytes_of(v.kind), blocked(v.kind));
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());

  // 1 and 0 for yes and no, -1 where it cannot be told from here. Ten times as fast as .item().
  m.def("starts_with_0_or_1", [](nb::handle tensor) {
    View view;
    if (!read(tensor, &view) || view.kind > kFloat64 || !view.tensor.data) return -1;
    static constexpr uint64_t one[] = {0x3F80'0000, 0x3F80, 0x3C00, 0x3FF0'0000'0000'0000};
    const uint64_t bits = first_bits(view), sign = uint64_t(1) << (8 * bytes_of(view.kind) - 1);
    return int(bits == 0 || bits == sign || bits == one[view.kind]);
  });
}

}  // namespace clearhead
