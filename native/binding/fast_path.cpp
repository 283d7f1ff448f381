// Fast path: a call on plain tensors, which are read through DLPack's C interface in about 50 ns each. Reading their
// addresses, strides and dtypes from Python takes longer than a small attention does.
#include "binding/fast_path.h"

#include "dispatch/dispatch.h"
#include "binding/dlpack.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

PyTypeObject *tensor_type = nullptr, *parameter_type = nullptr;
const dlpack::Exchange* exchange = nullptr;

// Kinds beyond the dtypes of the kernels: masks, and everything else.
enum Kind { kBool = 4, kOther = 5 };

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

// PyObject_CallMethodNoArgs, which the stable ABI does not have. The result is invalid where an error is set.
nb::object call_method(nb::handle object, PyObject* name) {
  PyObject* const arguments[] = {object.ptr()};
  return nb::steal(PyObject_VectorcallMethod(name, arguments, 1, nullptr));
}

bool is_negated(PyObject* object) {
  static PyObject* const name = PyUnicode_InternFromString("is_neg");
  const nb::object answer = call_method(object, name);
  if (!answer.is_valid()) PyErr_Clear();
  return answer.ptr() != Py_False;
}

// Whether a tensor's storage has memory. Torch adds a view's offset to the storage's address, so that a view of a
// storage without memory, freed or functional, seems to start at its offset.
bool has_storage(PyObject* object) {
  static PyObject* const storage_name = PyUnicode_InternFromString("untyped_storage");
  static PyObject* const address_name = PyUnicode_InternFromString("data_ptr");
  const nb::object storage = call_method(object, storage_name);
  if (!storage.is_valid()) return PyErr_Clear(), false;
  const nb::object address = call_method(storage, address_name);
  if (!address.is_valid()) return PyErr_Clear(), false;
  return PyObject_IsTrue(address.ptr()) == 1;
}

// Below this address a tensor may have no storage: a process rarely has its heap there, and offsets are rarely larger.
constexpr uintptr_t kLow = uintptr_t{1} << 32;

// Reads a torch.Tensor or Parameter in CPU memory with up to four axes; missing leading axes have size 1 and stride 0.
// Returns false for everything else, including views whose memory holds the negatives of the tensor's numbers.
bool read(nb::handle object, View* view) {
  dlpack::Tensor t;
  const PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type != tensor_type && type != parameter_type) return false;
  if (exchange->look(object.ptr(), &t) != 0) {
    PyErr_Clear();
    return false;
  }
  if (t.device != 1 || t.axes > 4 || !t.data || !t.strides || is_negated(object.ptr())) return false;
  if (reinterpret_cast<uintptr_t>(t.data) < kLow && !has_storage(object.ptr())) return false;
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

// Broadcasts a mask to (B, H, L, S), by strides of 0; returns false where it does not fit.
bool broadcast(View* mask, const int64_t (&full)[4]) {
  int64_t* const strides[] = {&mask->tensor.batch, &mask->tensor.head, &mask->tensor.row, &mask->tensor.column};
  for (int i = 0; i < 4; i++) {
    if (mask->sizes[i] == 1) *strides[i] = 0;
    else if (mask->sizes[i] != full[i]) return false;
    mask->sizes[i] = full[i];
  }
  return mask->axes >= 2;
}

// Whether a call can take the fast path.
enum FastPath {
  kNone,            // no
  kForward,         // yes, without gradients
  kDifferentiable,  // yes, with gradients; torch's own kernel reads these tensors as well
};

struct Call {
  Attention p = {};
  View query, key, value, mask;
};

// Whether the last axis is contiguous and no other is: torch's kernel writes out of bounds for overlapping windows.
bool in_rows(const View& v) {
  const int64_t strides[] = {v.tensor.batch, v.tensor.head, v.tensor.row};
  for (int i = 0; i < 3; i++)
    if (strides[i] == 1 && v.sizes[i] > 1 && v.sizes[3] > 1) return false;
  return v.tensor.column == 1;
}

// Query (B, H, L, D), key (B, H_kv, S, D) and value (B, H_kv, S, E) of one dtype, none empty, and a mask that broadcasts
// to (B, H, L, S), bool, float32 or of their dtype. B may be 1 for key and value, and so may H_kv; with `grouped` H_kv
// divides H. All three may lack B, or B and H.
FastPath describe(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped, Call* call) {
  View &q = call->query, &k = call->key, &v = call->value, &m = call->mask;
  if (!read(query, &q) || !read(key, &k) || !read(value, &v)) return kNone;
  if (q.kind > kFloat64 || k.kind != q.kind || v.kind != q.kind) return kNone;
  if (q.axes < (grouped ? 4 : 2) || k.axes != q.axes || v.axes != q.axes) return kNone;
  const auto [batch, heads, length, width] = q.sizes;
  const int64_t kv_heads = k.sizes[1], keys = k.sizes[2], value_width = v.sizes[3];
  if (batch * heads * length * width == 0 || kv_heads * keys * value_width == 0) return kNone;
  if (k.sizes[3] != width || v.sizes[2] != keys || v.sizes[1] != kv_heads) return kNone;
  if (heads % kv_heads != 0 || !(grouped || kv_heads == heads || kv_heads == 1)) return kNone;
  for (View* const x : {&k, &v}) {
    if (x->sizes[0] != batch && x->sizes[0] != 1) return kNone;
    if (x->sizes[0] != batch) x->tensor.batch = 0;
  }
  Attention& p = call->p;
  p.batch = batch;
  p.heads = heads;
  p.kv_heads = kv_heads;
  p.length = length;
  p.keys = keys;
  p.width = width;
  p.value_width = value_width;
  p.dtype = static_cast<Dtype>(q.kind);
  p.query = q.tensor;
  p.key = k.tensor;
  p.value = v.tensor;
  if (!mask.is_none()) {
    if (!read(mask, &m) || m.axes > q.axes || !broadcast(&m, {batch, heads, length, keys})) return kNone;
    if (m.kind != kBool && m.kind != q.kind && !(m.kind == kFloat32 && q.kind != kFloat64)) return kNone;
    (m.kind == kBool ? p.allow : p.bias) = m.tensor;
    p.bias_dtype = static_cast<Dtype>(m.kind);
  }
  const bool shared = k.sizes[0] != batch || v.sizes[0] != batch || !(grouped || kv_heads == heads);
  const bool same_axes = q.axes == 4 && !shared && value_width == width;
  return same_axes && in_rows(q) && in_rows(k) && in_rows(v) ? kDifferentiable : kForward;
}

// The attention of a call, into `out` and, where it is given, `lse`.
Attention attention(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped, bool is_causal,
                    double scale, nb::handle out, nb::handle lse) {
  Call call;
  if (describe(query, key, value, mask, grouped, &call) == kNone) throw nb::type_error("this call cannot take the fast path");
  Attention& p = call.p;
  if (is_causal) p.band_high = 0;
  p.scale = scale;
  p.out = must_read(out).tensor;
  if (lse.is_none()) return p;
  const View l = must_read(lse);  // (B, H, L): its axes were moved to the back
  p.lse = {l.tensor.data, l.tensor.head, l.tensor.row, l.tensor.column, 0};
  p.lse_dtype = static_cast<Dtype>(l.kind);
  return p;
}

int bytes_of(int kind) { return kind == kFloat64 ? 8 : kind == kFloat32 ? 4 : kind == kBool ? 1 : 2; }

uint64_t bits_at(const View& view, int64_t index) {
  switch (bytes_of(view.kind)) {
    case 1: return static_cast<const uint8_t*>(view.tensor.data)[index];
    case 2: return static_cast<const uint16_t*>(view.tensor.data)[index];
    case 4: return static_cast<const uint32_t*>(view.tensor.data)[index];
    default: return static_cast<const uint64_t*>(view.tensor.data)[index];
  }
}

// Whether an entry leaves a key out: false, or a number so low that with a logit added it is the end of float32's range,
// where our kernels leave a row nothing and torch's spread it evenly. Numbers with a sign are ordered as their bits are.
bool closes(const View& mask, int64_t index) {
  static constexpr uint64_t kLow[] = {0xF149'F2CA, 0xF14A, 0xFC00, 0xC629'3E59'39A0'8CEA};  // -1e30, in float16 -inf
  const uint64_t bits = bits_at(mask, index);
  return mask.kind == kBool ? bits == 0 : bits >= kLow[mask.kind];
}

// Whether each row of a mask has an entry that leaves its key in. Masks of more than kLooked entries are not read.
constexpr int64_t kLooked = 4096;

bool opens_every_row(const View& mask) {
  const auto& [batches, heads, rows, columns] = mask.sizes;
  if (batches * heads * rows * columns > kLooked) return false;
  for (int64_t i = 0; i < batches * heads * rows; i++) {
    const int64_t row = i / rows / heads * mask.tensor.batch + i / rows % heads * mask.tensor.head + i % rows * mask.tensor.row;
    int64_t column = 0;
    while (column < columns && closes(mask, row + column * mask.tensor.column)) column++;
    if (column == columns) return false;
  }
  return true;
}

}  // namespace

void bind_fast_path(nb::module_& m) {
  m.def("register_tensor_types", [](nb::handle tensor, nb::handle parameter, nb::handle api) {
    if (!PyCapsule_IsValid(api.ptr(), "dlpack_exchange_api")) return false;
    exchange = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(api.ptr(), "dlpack_exchange_api"));
    tensor_type = reinterpret_cast<PyTypeObject*>(tensor.ptr());
    parameter_type = reinterpret_cast<PyTypeObject*>(parameter.ptr());
    return exchange->major == 1;
  }, nb::arg(), nb::arg(), nb::arg().none(),
     "Register torch.Tensor, torch.nn.Parameter and Tensor.__dlpack_c_exchange_api__ before any other call here. Returns "
     "False if that interface is missing or of another version.");

  m.def("match", [](nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped) {
    Call call;
    return int(describe(query, key, value, mask, grouped, &call));
  }, nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg());

  // False too for a mask that is large or cannot be read here.
  m.def("opens_every_row", [](nb::handle mask) {
    View view;
    return read(mask, &view) && view.kind <= kBool && opens_every_row(view);
  });

  m.def("fast_forward", [](int target, int threads, nb::handle query, nb::handle key, nb::handle value,
                             nb::handle mask, bool grouped, bool is_causal, double scale, nb::handle out,
                             nb::handle lse, int pieces) {
    Attention p = attention(query, key, value, mask, grouped, is_causal, scale, out, lse);
    p.pieces = pieces;
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_forward(t, p, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
     nb::arg(), nb::arg().none(), nb::arg());

  m.def("fast_backward", [](int target, int threads, nb::handle query, nb::handle key, nb::handle value,
                                nb::handle mask, bool grouped, bool is_causal, double scale, nb::handle out,
                                nb::handle lse, nb::handle grad_out, nb::handle grad_query, nb::handle grad_key,
                                nb::handle grad_value) {
    const Attention p = attention(query, key, value, mask, grouped, is_causal, scale, out, lse);
    Gradients g;
    g.grad_out = must_read(grad_out).tensor;
    g.grad_query = must_read(grad_query).tensor;
    g.grad_key = must_read(grad_key).tensor;
    g.grad_value = must_read(grad_value).tensor;
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_backward(t, p, g, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
     nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());

  // 1 and 0 for yes and no, -1 for a tensor that cannot be read here. Ten times as fast as .item().
  m.def("starts_with_0_or_1", [](nb::handle tensor) {
    View view;
    if (!read(tensor, &view) || view.kind > kFloat64) return -1;
    static constexpr uint64_t one[] = {0x3F80'0000, 0x3F80, 0x3C00, 0x3FF0'0000'0000'0000};
    const uint64_t bits = bits_at(view, 0), sign = uint64_t(1) << (8 * bytes_of(view.kind) - 1);
    return int(bits == 0 || bits == sign || bits == one[view.kind]);
  });
}

}  // namespace clearhead
