#include "binding/override/operator_call.h"

#include <cstring>
#include <new>
#include <stdexcept>

namespace clearhead {

shim::Functions torch;

namespace {

constexpr int32_t kTorchsBool = 11;  // c10::ScalarType, whose numbers are in saved models
constexpr int32_t kTorchsTypes[] = {6, 15, 5, 7};  // of each Dtype

template <class Type>
Type as(Value value) {
  Type result;
  std::memcpy(&result, &value, sizeof(result));
  return result;
}

int kind_of(int32_t scalar_type) {
  for (int dtype = 0; dtype <= kFloat64; dtype++)
    if (kTorchsTypes[dtype] == scalar_type) return dtype;
  return scalar_type == kTorchsBool ? int(kBool) : int(kOther);
}

}  // namespace

OperatorCall::OperatorCall(const Value* stack, int tensors_given)
    : count(tensors_given), dropout(as<double>(stack[count])), is_causal(as<bool>(stack[count + 1])) {
  for (int i = 0; i < count; i++) tensors[i] = as<Handle>(stack[i]);
  if (auto* const optional = as<Value*>(stack[count + 2])) {
    mask = as<Handle>(*optional);
    torch.delete_value(optional);
    bool is_defined = false;  // autograd's backward pass gives an undefined tensor for a mask that was None
    torch.is_defined(mask, &is_defined);
    if (!is_defined) {
      torch.delete_tensor(mask);
      mask = nullptr;
    }
  }
  if (auto* const optional = as<Value*>(stack[count + 3])) {
    scale = as<double>(*optional);
    has_scale = true;
    torch.delete_value(optional);
  }
}

OperatorCall::~OperatorCall() {
  for (int i = 0; i < count; i++) torch.delete_tensor(tensors[i]);
  if (mask) torch.delete_tensor(mask);
}

bool look(Handle tensor, View* view) {
  int32_t scalar_type = -1;
  int64_t *sizes = nullptr, *strides = nullptr, padded[4] = {}, bytes = 0;
  void* data = nullptr;
  torch.get_dim(tensor, &view->axes);
  if (view->axes > 4) return false;
  torch.get_dtype(tensor, &scalar_type);
  torch.get_sizes(tensor, &sizes);
  torch.get_strides(tensor, &strides);
  if (torch.get_storage_size(tensor, &bytes) != 0 || bytes == 0) return false;  // its address would be an error
  if (torch.get_data_ptr(tensor, &data) != 0 || !data) return false;
  const int64_t missing = 4 - view->axes;
  for (int64_t i = 0; i < 4; i++) {
    view->sizes[i] = i < missing ? 1 : sizes[i - missing];
    padded[i] = i < missing ? 0 : strides[i - missing];
  }
  view->kind = kind_of(scalar_type);
  view->tensor = {data, padded[0], padded[1], padded[2], padded[3]};
  return true;
}

Handle empty(int axes, const int64_t* sizes, const int* order, int kind, View* view) {
  int64_t strides[4], next = 1;
  for (int i = axes - 1; i >= 0; i--) {
    strides[order[i]] = next;
    next *= sizes[order[i]];
  }
  Handle made = nullptr;
  if (torch.empty_strided(axes, sizes, strides, kTorchsTypes[kind], torch.cpu(), 0, &made) != 0)
    throw std::bad_alloc();
  if (!look(made, view)) {
    torch.delete_tensor(made);
    throw std::runtime_error("torch made a tensor that cannot be read");
  }
  return made;
}

bool torch_computes(const OperatorCall& call) {
  if (call.dropout != 0) return false;
  View query, tensor;
  if (!look(call.inputs()[0], &query) || query.kind > kFloat64) return false;
  const int tensors = call.is_backward() ? 4 : 3;
  for (int i = 0; i < tensors; i++) {
    if (!look(call.inputs()[i], &tensor) || tensor.axes != 4) return false;
    if (tensor.kind != query.kind || tensor.sizes[3] != query.sizes[3] || tensor.tensor.column != 1) return false;
  }
  if (!call.mask) return true;
  return look(call.mask, &tensor) && tensor.kind == query.kind && (tensor.axes == 2 || tensor.axes == 4);
}

bool run_torch(OperatorCall& call, Handle* r) {
  Handle* const mask = call.mask ? &call.mask : nullptr;
  double* const scale = call.has_scale ? &call.scale : nullptr;
  const Handle* const t = call.tensors;
  if (!call.is_backward())
    return torch.forward(t[0], t[1], t[2], call.dropout, call.is_causal, mask, scale, &r[0], &r[1]) == 0;
  return torch.backward(t[0], t[1], t[2], t[3], t[4], t[5], call.dropout, call.is_causal, mask, scale, &r[0], &r[1], &r[2]) == 0;
}

}  // namespace clearhead
