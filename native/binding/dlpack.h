// As much of DLPack's C interface, version 1, as is called here: how another library's tensor says where its numbers
// lie. https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once
#include <cstdint>

namespace clearhead::dlpack {

enum Code : uint8_t { kFloat = 2, kBFloat = 4, kBool = 6 };

struct Tensor {
  void* data;
  int32_t device, device_number;  // device 1 is the CPU
  int32_t axes;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t *sizes, *strides;  // strides in numbers
  uint64_t byte_offset;
};

// What lies behind `type(tensor).__dlpack_c_exchange_api__`.
struct Exchange {
  uint32_t major, minor;
  const Exchange* older;
  void (*allocate)();                        // not called here
  void (*export_owned)();                    // not called here
  void (*import_owned)();                    // not called here
  int (*look)(void* object, Tensor* tensor);  // not 0 where it fails, with a Python error set
  void (*stream)();                          // not called here
};

}  // namespace clearhead::dlpack
