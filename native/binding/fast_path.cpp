// Fast path: which way a call on plain tensors goes, in one look at them, and the kernels on those that stay here.
#include "binding/fast_path.h"

#include <utility>

#include "binding/costs.h"
#include "binding/call.h"
#include "binding/torch.h"
#include "dispatch/dispatch.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

struct Call {
  Attention p = {};
  View query, key, value, mask;  // as they were given
};

// Query, key and value may be negated: torch's kernel never reads such memory.
FastPath describe(nb::handle query, nb::handle key, nb::handle value, nb::handle mask, bool grouped, Call* call) {
  if (!look(query, &call->query) || !look(key, &call->key) || !look(value, &call->value)) return kNone;
  const bool is_masked = !mask.is_none();
  if (is_masked && (!look(mask, &call->mask) || (call->mask.kind != kBool && is_negated(mask)))) return kNone;
  return describe(call->query, call->key, call->value, is_masked ? &call->mask : nullptr, grouped, &call->p);
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
  if (!lse.is_none()) write_lse(must_read(lse), &p);
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
