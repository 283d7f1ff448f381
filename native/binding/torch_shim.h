// As much of torch's stable C interface as is called here, found in the loaded libtorch_cpu at run time, so that the build
// needs neither torch's headers nor its libraries. torch/csrc/stable/c/shim.h and torch/csrc/inductor/aoti_torch/c/shim.h.
#pragma once
#include <cstdint>

namespace clearhead::shim {

using Value = uint64_t;  // StableIValue: a number, a tensor's handle, or the address of an optional argument's Value
using Handle = struct AtenTensorOpaque*;
using Kernel = void (*)(Value* stack, uint64_t arguments, uint64_t outputs);
using Error = int32_t;  // 0 where a function succeeds

// The address of a function or variable of torch; of a thread-local one, that of this thread. Null where torch has none.
void* symbol(const char* name);

template <class Function>
bool get(Function*& function, const char* name) {
  function = reinterpret_cast<Function*>(symbol(name));
  return function != nullptr;
}

struct Functions {
  Error (*init_library)(const char* space, const char* key, const char* file, uint32_t line, void** library);
  Error (*implement)(void* library, const char* name, Kernel kernel, uint64_t version);
  Error (*delete_value)(Value* optional);
  Error (*delete_tensor)(Handle tensor);
  Error (*is_defined)(Handle tensor, bool* is_defined);
  Error (*get_dim)(Handle tensor, int64_t* axes);
  Error (*get_dtype)(Handle tensor, int32_t* dtype);
  Error (*get_sizes)(Handle tensor, int64_t** sizes);
  Error (*get_strides)(Handle tensor, int64_t** strides);
  Error (*get_data_ptr)(Handle tensor, void** data);
  Error (*get_storage_size)(Handle tensor, int64_t* bytes);
  Error (*empty_strided)(int64_t axes, const int64_t* sizes, const int64_t* strides, int32_t dtype, int32_t device, int32_t index,
                         Handle* made);
  int32_t (*cpu)();
  bool (*is_grad_enabled)();
  Error (*get_num_threads)(uint32_t* threads);
  Error (*forward)(Handle query, Handle key, Handle value, double dropout, int32_t is_causal, Handle* mask, double* scale,
                   Handle* out, Handle* lse);
  Error (*backward)(Handle grad_out, Handle query, Handle key, Handle value, Handle out, Handle lse, double dropout,
                    int32_t is_causal, Handle* mask, double* scale, Handle* grad_query, Handle* grad_key, Handle* grad_value);

  // Finds every function; false where one is missing.
  bool find();

  // Replaces the CPU kernel of an operator of torch for as long as the process lives; false where torch refuses.
  bool override_cpu(const char* name, Kernel kernel);

 private:
  void* library_ = nullptr;
};

}  // namespace clearhead::shim
