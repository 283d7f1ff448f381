#include "binding/torch_shim.h"

#ifdef __linux__
#include <dlfcn.h>
#endif

namespace clearhead::shim {

namespace {

// The version of the interface that is declared here, 2.13: torch keeps its conventions for kernels registered with it.
constexpr uint64_t kVersion = uint64_t{2} << 56 | uint64_t{13} << 48;

}  // namespace

#ifdef __linux__
// Python loads libtorch_cpu outside the global scope, where RTLD_DEFAULT does not look.
void* symbol(const char* name) {
  static void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  return torch ? dlsym(torch, name) : nullptr;
}
#else
void* symbol(const char*) { return nullptr; }  // not tested elsewhere: the Python override runs there
#endif

bool Functions::find() {
  return get(init_library, "aoti_torch_library_init_impl") && get(implement, "torch_library_impl") &&
         get(delete_value, "torch_delete_stable_ivalue") && get(delete_tensor, "aoti_torch_delete_tensor_object") &&
         get(is_defined, "aoti_torch_is_defined") && get(get_dim, "aoti_torch_get_dim") &&
         get(get_dtype, "aoti_torch_get_dtype") && get(get_sizes, "aoti_torch_get_sizes") &&
         get(get_strides, "aoti_torch_get_strides") && get(get_data_ptr, "aoti_torch_get_data_ptr") &&
         get(get_storage_size, "aoti_torch_get_storage_size") && get(empty_strided, "aoti_torch_empty_strided") &&
         get(cpu, "aoti_torch_device_type_cpu") && get(is_grad_enabled, "aoti_torch_grad_mode_is_enabled") &&
         get(get_num_threads, "torch_get_num_threads") &&
         get(forward, "aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu") &&
         get(backward, "aoti_torch_cpu__scaled_dot_product_flash_attention_for_cpu_backward");
}

bool Functions::override_cpu(const char* name, Kernel kernel) {
  if (!library_ && init_library("aten", "CPU", "clearhead", 0, &library_) != 0) return false;
  return implement(library_, name, kernel, kVersion) == 0;
}

}  // namespace clearhead::shim
