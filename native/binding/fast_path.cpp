// Fast path: which way a call on plain tensors goes, in one look at them, and the kernels on those that stay here.
#include "binding/fast_path.h"

#include <utility>

#include "binding/costs.h"
#include "binding/torch.h"
#include "dispatch/dispatch.h"

namespace nb = nanobind;

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

// Whether a call can take the fast path.
enum FastPath {
  kNone,            // no
  kForward,         // yes, without gradients
  kDifferentiable,  // yes, with gradients
  kTorchReads,      // yes, with gradients; torch's own kernel reads these tensors as well
};

struct Call {
  Attention p = {};
  View query, key, value, mask;  // as they were given
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
// divides H. All three may lack B, or B and H. Query, key and value may be negated: torch's kernel never reads such memory.
FastPath describe(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped, Call* call) {
  View &q = call->query, &k = call->key, &v = call->value, &m = call->mask;
  if (!look(query, &q) || !look(key, &k) || !look(value, &v)) return kNone;
  if (q.kind > kFloat64 || k.kind != q.kind || v.kind != q.kind) return kNone;
  if (q.axes < (grouped ? 4 : 2) || k.axes != q.axes || v.axes != q.axes) return kNone;
  const auto [batch, heads, length, width] = q.sizes;
  const int64_t kv_heads = k.sizes[1], keys = k.sizes[2], value_width = v.sizes[3];
  for (int64_t size : {batch, heads, length, width, kv_heads, keys, value_width})
    if (size == 0) return kNone;
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
    if (!look(mask, &m) || m.axes > q.axes || (m.kind != kBool && is_negated(mask))) return kNone;
    if (m.kind != kBool && m.kind != q.kind && !(m.kind == kFloat32 && q.kind != kFloat64)) return kNone;
    Tensor* const full = m.kind == kBool ? &p.allow : &p.bias;
    if (!broadcast(m, {batch, heads, length, keys}, full)) return kNone;
    p.bias_dtype = static_cast<Dtype>(m.kind);
  }
  const bool shared = k.sizes[0] != batch || v.sizes[0] != batch || !(grouped || kv_heads == heads);
  if (shared) return kForward;
  const bool whole = q.axes == 4 && value_width == width && in_rows(q) && in_rows(k) && in_rows(v);
  return whole ? kTorchReads : kDifferentiable;
}

// The attention of a call, into `out` and, where it is given, `lse`.
Attention attention(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped, bool is_causal,
                    double scale, nb::handle out, nb::handle lse) {
  Call call;
  if (describe(query, key, value, mask, grouped, &call) == kNone || is_negated(query) || is_negated(key) || is_negated(value))
    throw nb::type_error("this call cannot take the fast path");
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

// Which way a call goes; kernels/plan.py has the same numbers.
enum Match {
  kNoMatch,
  kNative,
  kNativeGradients,
  kTorchFaster,
  kUnreadable = 5,  // no tensors for the fast path: they may be on a GPU
};

// Whether torch's fused kernel takes a mask, as its caller gave it, beside gradients, and gives no NaN: a row that may
// attend nothing is one there.
bool torch_takes(const View& mask, int dtype) {
  return (mask.kind == kBool || mask.kind == dtype) && (mask.axes == 2 || mask.axes == 4) && opens_every_row(mask);
}

// learning: whether the call needs gradients; None = as autograd does.
Match match(const CostTable& costs, nb::handle query, nb::handle key, nb::handle value, nb::handle mask, nb::handle grouped,
            bool is_causal, nb::handle scale, bool with_lse, nb::handle learning) {
  const bool is_masked = !mask.is_none();
  if (!PyBool_Check(grouped.ptr()) || !(scale.is_none() || PyFloat_CheckExact(scale.ptr()))) return kNoMatch;
  Call call;
  const FastPath path = describe(query, key, value, mask, grouped.ptr() == Py_True, &call);
  const Attention& p = call.p;
  if (path == kNone || (is_masked && is_causal)) return kUnreadable;
  if (!costs.computes(p.dtype)) return kNoMatch;
  const bool mask_learns = is_masked && call.mask.kind != kBool && requires_grad(mask);
  const bool learns = learning.is_none() ? is_grad_enabled() && (requires_grad(query) || requires_grad(key) ||
                                                                 requires_grad(value) || mask_learns)
                                         : learning.ptr() == Py_True;
  if (learns && with_lse) return kNoMatch;
  const double saved = costs.saved(p.dtype, learns, double(p.batch) * p.heads, p.length, p.keys, p.width, num_threads());
  if (saved > 0) {
    // Torch's function takes tensors whose rows are whole, and forgets a causal mask if the scale is not positive.
    const bool forgets = is_causal && !scale.is_none() && PyFloat_AsDouble(scale.ptr()) <= 0;
    const bool takes = is_masked ? learns && !mask_learns && torch_takes(call.mask, p.dtype) : !forgets;
    if (takes && path == kTorchReads) return kTorchFaster;
    if (saved >= costs.least_saved(learns) && !(learns && path == kDifferentiable)) return kNoMatch;
  }
  if (learns && (path < kDifferentiable || mask_learns)) return kNoMatch;
  if (is_negated(query) || is_negated(key) || is_negated(value)) return kUnreadable;
  return learns ? kNativeGradients : kNative;
}

// Python objects, for as long as the process lives: torch's operator, a function that makes a tensor, and arguments.
PyObject *flash, *empty_like, *no_dropout, *dtype_name, *dtype_names, *flash_names;

nb::object checked(PyObject* result) {
  if (!result) throw nb::python_error();
  return nb::steal(result);
}

// A mask in the query's dtype: torch's operator takes no bool one.
nb::object in_numbers(nb::handle mask, nb::handle query) {
  const View from = must_read(mask);
  if (from.kind != kBool) return nb::borrow(mask);
  const nb::object dtype = checked(PyObject_GetAttr(query.ptr(), dtype_name));
  PyObject* const arguments[] = {mask.ptr(), dtype.ptr()};
  nb::object numbers = checked(PyObject_Vectorcall(empty_like, arguments, 1, dtype_names));
  write_as_numbers(from, must_read(numbers));
  return numbers;
}

// The output of torch's operator for a call of kTorchFaster. Its function takes longer, to choose the operator and to make
// numbers of a bool mask.
nb::object run_torch(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool is_causal, nb::handle scale) {
  const nb::object bias = mask.is_none() ? nb::none() : in_numbers(mask, query);
  PyObject* const arguments[] = {query.ptr(), key.ptr(), value.ptr(), no_dropout, is_causal ? Py_True : Py_False,
                                 bias.ptr(), scale.ptr()};
  const bool defaults = bias.is_none() && scale.is_none();
  const nb::object both = checked(PyObject_Vectorcall(flash, arguments, 5, defaults ? nullptr : flash_names));
  return nb::borrow(PyTuple_GetItem(both.ptr(), 0));
}

// The output of a call for which torch's function is faster, else its Match: one look at the tensors decides.
nb::object attend(nb::handle query, nb::handle key, nb::handle value, nb::handle is_causal, nb::handle scale, nb::handle mask,
                  nb::handle grouped) {
  if (is_watched()) return nb::int_(int(kNoMatch));
  const int causal = PyObject_IsTrue(is_causal.ptr());
  if (causal < 0) throw nb::python_error();
  const nb::object costs = costs_in_use();
  const Match matched =
      match(*nb::inst_ptr<CostTable>(costs), query, key, value, mask, grouped, causal, scale, false, nb::none());
  if (matched != kTorchFaster) return nb::int_(int(matched));
  return run_torch(query, key, value, mask, causal, scale);
}

}  // namespace

void bind_fast_path(nb::module_& m) {
  m.def("register_torch", &register_torch, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(),
        "Register torch.Tensor, torch.nn.Parameter, Tensor.__dlpack_c_exchange_api__, a tuple of functions that answer "
        "something while a call is watched, torch.is_grad_enabled and torch.get_num_threads before any other call here. "
        "Returns False if that interface is missing or of another version.");

  m.def("match", [](const CostTable& costs, bool looks, nb::handle query, nb::handle key, nb::handle value, nb::handle mask,
                    nb::handle grouped, nb::handle is_causal, nb::handle scale, bool with_lse, nb::handle learns) {
    if (looks && is_watched()) return int(kNoMatch);
    const int causal = PyObject_IsTrue(is_causal.ptr());
    if (causal < 0) throw nb::python_error();
    return int(match(costs, query, key, value, mask, grouped, causal, scale, with_lse, learns));
  }, nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
     nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg().none());

  m.def("register_attention", [](nb::handle operator_of_torch, nb::handle function_that_makes) {
    nb::steal(std::exchange(flash, operator_of_torch.inc_ref().ptr()));
    nb::steal(std::exchange(empty_like, function_that_makes.inc_ref().ptr()));
    if (no_dropout) return;
    no_dropout = nb::float_(0.0).release().ptr();
    dtype_name = PyUnicode_InternFromString("dtype");
    dtype_names = nb::make_tuple("dtype").release().ptr();
    flash_names = nb::make_tuple("attn_mask", "scale").release().ptr();
  }, "Register torch._scaled_dot_product_flash_attention_for_cpu and torch.empty_like before any call of `attend`.");

  m.def("attend", &attend, nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(), nb::arg().none(),
        nb::arg().none(), nb::arg().none());

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
    return int(starts_with_0_or_1(view));
  });
}

}  // namespace clearhead
