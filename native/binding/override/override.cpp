// Torch's attention operators on the CPU while `clearhead.accelerate` is on: each call runs on torch's kernel or on ours, and
// neither needs Python, which takes 10 to 30 µs a pass. The Python functions of multihead/torch_overrides.py take what is
// left: forced targets, float32 on tile registers, tensors that lie otherwise, and errors.
#include "binding/override/override.h"

#include <nanobind/stl/string.h>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "binding/costs.h"
#include "binding/override/operator_call.h"
#include "binding/override/our_kernels.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

// Python objects, for as long as the process lives.
PyObject *python_forward, *python_backward, *adopt, *lend, *is_forced;
double few[kFloat64 + 1], through_python;  // multiply-adds of each dtype; microseconds
std::atomic<bool> is_on{false};
thread_local bool is_torchs_own = false;  // the Python function of that name
// Calls while switched on that torch's kernel computed, and of ours the forward pass and the backward pass.
std::atomic<int64_t> counts[3];

// Whether torch's kernel is faster, by the plan's costs, than ours, which takes `longer` microseconds here than there. With
// gradients and without known costs: because the call has few multiply-adds.
bool is_torch_faster(const OperatorCall& call, bool learns, double longer) {
  View query, key;
  if (!look(call.inputs()[0], &query) || !look(call.inputs()[1], &key) || query.kind > kFloat64) return true;
  const int64_t* const q = query.sizes;
  const double heads = double(q[0]) * double(q[1]);
  uint32_t threads = 1;
  torch.get_num_threads(&threads);
  const auto saves = [&](const CostTable* costs) {
    const double saved = costs->saved(query.kind, learns, heads, q[2], key.sizes[2], q[3], int(threads));
    if (saved == -INFINITY) return learns && 2 * heads * double(q[2]) * double(q[3]) * double(key.sizes[2]) < few[query.kind];
    return saved + longer > 0;
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

bool needs_gradients(const OperatorCall& call) {
  if (call.is_backward()) return true;
  if (!torch.is_grad_enabled()) return false;
  const Handle* const t = call.tensors;
  if (requires_grad_of_torch) return requires_grad_of(t[0]) || requires_grad_of(t[1]) || requires_grad_of(t[2]);
  const nb::gil_scoped_acquire locked;
  for (int i = 0; i < kForwardTensors; i++)
    if (requires_grad(as_python(call.tensors[i]))) return true;
  return false;
}

enum Way { kTorch, kOurs, kPython };

// Which way a call goes, as multihead/torch_overrides.py decides it.
Way way_of(const OperatorCall& call) {
  const bool torch_can = torch_computes(call);
  if (!is_on || is_torchs_own) return torch_can ? kTorch : kPython;
  if (is_target_forced()) return kPython;
  const bool we_can = can_compute(call);
  // Torch's kernel forgets a causal mask if the scale is not positive.
  const bool forgets = call.is_causal && call.has_scale && call.scale <= 0;
  if (torch_can && !forgets) {
    const bool learns = needs_gradients(call);
    if ((we_can || learns) && is_torch_faster(call, learns, we_can ? 0 : through_python)) return kTorch;
  }
  return we_can ? kOurs : kPython;
}

// Throws what torch turns into a RuntimeError with the same message: it has no C function that keeps a Python error.
[[noreturn]] void rethrow(const nb::python_error& error) {
  const std::string message = nb::cast<std::string>(nb::str(error.value()));
  if (error.matches(PyExc_KeyboardInterrupt)) PyErr_SetInterrupt();  // raised again as soon as Python runs
  throw std::runtime_error(message);
}

void run_python(PyObject* function, const OperatorCall& call, Value* results) {
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

template <int count>
void kernel(Value* stack, uint64_t, uint64_t outputs) {
  OperatorCall call(stack, count);
  Handle results[3];
  const Way way = way_of(call);
  if (way == kPython || (way == kTorch && !run_torch(call, results))) {
    run_python(call.is_backward() ? python_backward : python_forward, call, stack);
    return;
  }
  if (way == kOurs) compute(call, results);
  if (is_on) counts[way == kTorch ? 0 : 1 + call.is_backward()]++;
  for (uint64_t i = 0; i < outputs; i++) stack[i] = reinterpret_cast<Value>(results[i]);
}

}  // namespace

void bind_overrides(nb::module_& m) {
  m.def("register_overrides", [](nb::handle forward, nb::handle backward, nb::handle adopting, nb::handle lending,
                                 nb::handle forced, const nb::tuple& targets, const nb::tuple& fewer_than, double microseconds) {
    if (!torch.find()) return false;
    int target_of[kFloat64 + 1];
    for (int i = 0; i <= kFloat64; i++) target_of[i] = nb::cast<int>(targets[i]);
    set_targets(target_of);
    python_forward = forward.inc_ref().ptr();
    python_backward = backward.inc_ref().ptr();
    adopt = adopting.inc_ref().ptr();
    lend = lending.inc_ref().ptr();
    is_forced = forced.inc_ref().ptr();
    for (size_t i = 0; i < fewer_than.size(); i++) few[i] = nb::cast<double>(fewer_than[i]);
    through_python = microseconds;
    return torch.override_cpu("_scaled_dot_product_flash_attention_for_cpu", kernel<kForwardTensors>) &&
           torch.override_cpu("_scaled_dot_product_flash_attention_for_cpu_backward", kernel<kBackwardTensors>);
  }, "Register C++ kernels for torch's attention operators on the CPU, for as long as the process lives, and the two functions "
     "that take what those leave. The next two turn a capsule of a handle into a tensor and back, the third says whether a CPU "
     "target is forced. Then the best target of each dtype, or -1 for those that Python computes; the numbers of "
     "multiply-adds, one for each dtype, below which calls with gradients go to torch where no costs are known; and the "
     "microseconds that Python takes. Returns False where torch lacks the interface.");

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

  m.def("be_torchs_own", [](bool own) { is_torchs_own = own; },
        "Whether calls of this thread run on torch's own kernels, switched on or not.");

  m.def("take_counts", [] { return nb::make_tuple(counts[0].exchange(0), counts[1].exchange(0), counts[2].exchange(0)); },
        "How many calls torch's kernels computed since this was last called, while switched on, and how many forward and "
        "backward passes ours.");
}

}  // namespace clearhead
