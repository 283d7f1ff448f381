#include "binding/dispatch_state.h"

#include <cstdint>

#include "binding/torch_shim.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

// c10::impl::raw_local_dispatch_key_set. Both words are 0 as long as nothing but autograd sees a call: a dispatch mode, a
// functorch transform and a tracer set bits of the first, autocast one of the second.
struct KeySet {
  uint64_t included, excluded;
};

const KeySet* key_set() {
  thread_local const auto* const own = static_cast<const KeySet*>(shim::symbol("_ZN3c104impl26raw_local_dispatch_key_setE"));
  return own;
}

// at::impl::PythonTorchFunctionTLS::stack_len(): modes of torch functions have no dispatch key.
int64_t (*count_function_modes)() = nullptr;
bool is_read = false;

}  // namespace

bool is_plainly_dispatched() {
  if (!is_read) return false;
  const KeySet* const keys = key_set();
  return keys->included == 0 && keys->excluded == 0 && count_function_modes() == 0;
}

void bind_dispatch_state(nb::module_& m) {
  m.def("dispatch_state", []() -> nb::object {
    const KeySet* const keys = key_set();
    if (!keys) return nb::none();
    return nb::make_tuple(keys->included, keys->excluded);
  }, "The two words of this thread's dispatch keys, 0 where no mode sees a call; None where torch has no such variable.");

  m.def("read_dispatch_state", [](bool reads) {
    is_read = reads && key_set() && shim::get(count_function_modes, "_ZN2at4impl22PythonTorchFunctionTLS9stack_lenEv");
    return is_read;
  }, "Read those words from now on, or again ask the functions of `register_torch`; returns whether they are read.");
}

}  // namespace clearhead
