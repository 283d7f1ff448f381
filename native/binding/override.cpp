// Calls of few tokens with gradients go from torch's dispatcher straight to torch's own kernel; every other call goes to
// the Python function of multihead/torch_overrides.py. Through Python, both passes of 1 token took 31 µs more than torch's
// 59, and through here 3 (AMD Zen 4).
#include "binding/override.h"

#include <nanobind/stl/string.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "binding/costs.h"
#include "binding/torch.h"
#include "binding/torch_shim.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

using shim::Handle, shim::Value;

constexpr int kForward = 3, kBackward = 6;  // how many tensors the operators take before dropout_p

shim::Functions torch;
// Python objects, for as long as the process lives.
PyObject *python_forward, *python_backward, *adopt, *lend, *is_forced;
double few[kFloat64 + 1], through_python;  // multiply-adds of each dtype; microseconds
std::atomic<bool> is_on{false};
std::atomic<int64_t> handed_back{0};

template <class Type>
Type as(Value value) {
  Type result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

// The arguments of one call, which belong to the kernel that torch calls.
struct Call {
  const int count;
  Handle tensors[kBackward], mask = nullptr;
  const double dropout;
  const bool is_causal;
  double scale = 0;
  bool has_scale = false;

  Call(const Value* stack, int count) : count(count), dropout(as<double>(stack[count])), is_causal(as<bool>(stack[count + 1])) {
    for (int i = 0; i < count; i++) tensors[i] = as<Handle>(stack[i]);
    if (auto* const optional = as<Value*>(stack[count + 2])) {
      mask = as<Handle>(*optional);
      torch.delete_value(optional);
      forget_undefined_mask();
    }
    if (auto* const optional = as<Value*>(stack[count + 3])) {
      scale = as<double>(*optional);
      has_scale = true;
      torch.delete_value(optional);
    }
  }
  Call(const Call&) = delete;
  ~Call() {
    for (int i = 0; i < count; i++) torch.delete_tensor(tensors[i]);
    if (mask) torch.delete_tensor(mask);
  }

  // Autograd's backward pass gives an undefined tensor for a mask that was None.
  void forget_undefined_mask() {
    bool is_defined = false;
    torch.is_defined(mask, &is_defined);
    if (is_defined) return;
    torch.delete_tensor(mask);
    mask = nullptr;
  }

  const Handle* inputs() const { return tensors + (count == kBackward); }  // query, key, value (, output, lse)
};

struct Shape {
  int64_t axes = 0;
  int32_t dtype = -1;
  int64_t *sizes = nullptr, *strides = nullptr;

  explicit Shape(Handle tensor) {
    torch.get_dim(tensor, &axes);
    torch.get_dtype(tensor, &dtype);
    torch.get_sizes(tensor, &sizes);
    torch.get_strides(tensor, &strides);
  }
};

// Whether torch's kernel computes a call without an error: its C function writes each error to stderr.
bool torch_computes(const Call& call) {
  if (call.dropout != 0) return false;
  const Shape query(call.inputs()[0]);
  const int tensors = call.count == kBackward ? 4 : 3;
  for (int i = 0; i < tensors; i++) {
    const Shape tensor(call.inputs()[i]);
    if (tensor.axes != 4 || tensor.dtype != query.dtype || tensor.sizes[3] != query.sizes[3]) return false;
    if (tensor.strides[3] != 1) return false;
  }
  if (!call.mask) return true;
  const Shape mask(call.mask);
  return mask.dtype == query.dtype && (mask.axes == 2 || mask.axes == 4);
}

// A dtype of the kernels for one of torch's c10::ScalarType, whose numbers are in saved models; -1 for any other.
int dtype_of(int32_t scalar_type) {
  switch (scalar_type) {
    case 5: return kFloat16;
    case 6: return kFloat32;
    case 7: return kFloat64;
    case 15: return kBFloat16;
    default: return -1;
  }
}

// Whether torch's kernel is faster for a call with gradients than ours through Python: by the plan's costs, or where these
// are not known, because it has few multiply-adds.
bool is_torch_faster(const Call& call) {
  const Shape query(call.inputs()[0]), key(call.inputs()[1]);
  const int dtype = dtype_of(query.dtype);
  if (dtype < 0) return true;
  const int64_t* const q = query.sizes;
  const double heads = double(q[0]) * double(q[1]);
  uint32_t threads = 1;
  torch.get_num_threads(&threads);
  const auto saves = [&](const CostTable* costs) {
    const double saved = costs->saved(dtype, true, heads, q[2], key.sizes[2], q[3], int(threads));
    if (saved == -INFINITY) return 2 * heads * double(q[2]) * double(q[3]) * double(key.sizes[2]) < few[dtype];
    return saved + through_python > 0;
  };
  if (const CostTable* const costs = unforced_costs()) return saves(costs);
  const nb::gil_scoped_acquire locked;
  const nb::object table = costs_in_use();
  return saves(nb::inst_ptr<CostTable>(table));
}

// The Python tensor of a handle, which stays the caller's: torch's function copies it (torch_overrides.py makes sure).
nb::object as_python(Handle tensor) { return nb::handle(adopt)(nb::steal(PyCapsule_New(tensor, nullptr, nullptr))); }

// Asks Python only where it must: the GIL and a call take 1 µs.
bool is_target_forced() {
  if (!may_be_forced()) return false;
  const nb::gil_scoped_acquire locked;
  return nb::cast<bool>(nb::handle(is_forced)());
}

// c10::TensorImpl::requires_grad() of what a handle, an at::Tensor*, points at: torch's C interface does not say it. Null
// where this torch has other tensors; asking Python takes 2 µs.
bool (*requires_grad_of_torch)(const void* tensor) = nullptr;

bool requires_grad_of(Handle tensor) { return requires_grad_of_torch(*reinterpret_cast<void* const*>(tensor)); }

bool needs_gradients(const Call& call) {
  if (call.count == kBackward) return true;
  if (!torch.is_grad_enabled()) return false;
  const Handle* const t = call.tensors;
  if (requires_grad_of_torch) return requires_grad_of(t[0]) || requires_grad_of(t[1]) || requires_grad_of(t[2]);
  const nb::gil_scoped_acquire locked;
  for (int i = 0; i < kForward; i++)
    if (requires_grad(as_python(call.tensors[i]))) return true;
  return false;
}

// Whether torch's kernel is to compute a call, as multihead/torch_overrides.py decides it.
bool is_torchs(const Call& call) {
  return torch_computes(call) && (!is_on || (needs_gradients(call) && !is_target_forced() && is_torch_faster(call)));
}

// Throws what torch turns into a RuntimeError with the same message: it has no C function that keeps a Python error.
[[noreturn]] void rethrow(const nb::python_error& error) {
  const std::string message = nb::cast<std::string>(nb::str(error.value()));
  if (error.matches(PyExc_KeyboardInterrupt)) PyErr_SetInterrupt();  // raised again as soon as Python runs
  throw std::runtime_error(message);
}

void run_python(PyObject* function, const Call& call, Value* results) {
  const nb::gil_scoped_acquire locked;
  Handle lent[3];
  int count = 0;
  try {
    nb::list arguments;
    for (int i = 0; i < call.count; i++) arguments.append(as_python(call.tensors[i]));
    arguments.append(call.dropout);
    arguments.append(call.is_causal);
    const nb::object mask = call.mask ? as_python(call.mask) : nb::none();
    const nb::object scale = call.has_scale ? nb::object(nb::float_(call.scale)) : nb::none();
    const nb::object returned = nb::handle(function)(*arguments, nb::arg("attn_mask") = mask, nb::arg("scale") = scale);
    for (nb::handle tensor : returned) {
      const nb::object capsule = nb::handle(lend)(tensor);
      lent[count++] = static_cast<Handle>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
    }
  } catch (const nb::python_error& error) {
    for (int i = 0; i < count; i++) torch.delete_tensor(lent[i]);
    rethrow(error);
  }
  for (int i = 0; i < count; i++) results[i] = reinterpret_cast<Value>(lent[i]);
}

bool run_torch(Call& call, Handle (&r)[3]) {
  Handle* const mask = call.mask ? &call.mask : nullptr;
  double* const scale = call.has_scale ? &call.scale : nullptr;
  const Handle* const t = call.tensors;
  if (call.count == kForward)
    return torch.forward(t[0], t[1], t[2], call.dropout, call.is_causal, mask, scale, &r[0], &r[1]) == 0;
  return torch.backward(t[0], t[1], t[2], t[3], t[4], t[5], call.dropout, call.is_causal, mask, scale, &r[0], &r[1], &r[2]) == 0;
}

template <int count>
void kernel(Value* stack, uint64_t, uint64_t outputs) {
  Call call(stack, count);
  Handle results[3];
  if (is_torchs(call) && run_torch(call, results)) {
    if (is_on) handed_back++;
    for (uint64_t i = 0; i < outputs; i++) stack[i] = reinterpret_cast<Value>(results[i]);
    return;
  }
  run_python(count == kForward ? python_forward : python_backward, call, stack);
}

}  // namespace

void bind_overrides(nb::module_& m) {
  m.def("register_overrides", [](nb::handle forward, nb::handle backward, nb::handle adopting, nb::handle lending,
                                 nb::handle forced, const nb::tuple& fewer_than, double microseconds) {
    if (!torch.find()) return false;
    python_forward = forward.inc_ref().ptr();
    python_backward = backward.inc_ref().ptr();
    adopt = adopting.inc_ref().ptr();
    lend = lending.inc_ref().ptr();
    is_forced = forced.inc_ref().ptr();
    for (size_t i = 0; i < fewer_than.size(); i++) few[i] = nb::cast<double>(fewer_than[i]);
    through_python = microseconds;
    return torch.override_cpu("_scaled_dot_product_flash_attention_for_cpu", kernel<kForward>) &&
           torch.override_cpu("_scaled_dot_product_flash_attention_for_cpu_backward", kernel<kBackward>);
  }, "Register C++ kernels for torch's attention operators on the CPU, for as long as the process lives: calls with "
     "gradients that torch computes faster go back to torch, others to the two functions. The next two turn a capsule of a "
     "handle into a tensor and back, the third says whether a CPU target is forced. Then the numbers of multiply-adds, one "
     "for each dtype, below which calls with gradients go back where no costs are known, and the microseconds that Python "
     "takes. Returns False where torch lacks the interface.");

  m.def("read_requires_grad", [](nb::capsule without, nb::capsule with) {
    const auto handle = [](const nb::capsule& capsule) { return static_cast<Handle>(capsule.data()); };
    const bool has_it = shim::get(requires_grad_of_torch, "_ZNK3c1010TensorImpl13requires_gradEv");
    const bool is_read = has_it && !requires_grad_of(handle(without)) && requires_grad_of(handle(with));
    if (!is_read) requires_grad_of_torch = nullptr;
    for (const nb::capsule& capsule : {without, with}) torch.delete_tensor(handle(capsule));
    return is_read;
  }, "Read from handles whether a tensor requires a gradient, if that gives the right answer for a tensor without and one "
     "with. Deletes both handles.");

  m.def("switch_overrides", [](bool on) { is_on = on; }, "Whether calls may leave torch's own kernels.");

  m.def("take_handed_back", [] { return handed_back.exchange(0); },
        "How many calls went back to torch since this was last called, while switched on.");
}

}  // namespace clearhead
