#include "binding/torch.h"

#include "binding/dispatch_state.h"
#include "binding/dlpack.h"
#include "binding/torch_shim.h"

namespace nb = nanobind;

namespace clearhead {

namespace {

PyTypeObject *tensor_type = nullptr, *parameter_type = nullptr;
const dlpack::Exchange* exchange = nullptr;
// Functions of torch: to look one up again takes as long as to call it.
PyObject *is_neg = nullptr, *grad_mode = nullptr, *get_num_threads = nullptr;
nb::tuple* watchers = nullptr;
// The same two of torch's C interface, where it has them.
bool (*grad_mode_of_torch)() = nullptr;
shim::Error (*num_threads_of_torch)(uint32_t*) = nullptr;

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

nb::object call(PyObject* function) {
  nb::object answer = nb::steal(PyObject_CallNoArgs(function));
  if (!answer.is_valid()) throw nb::python_error();
  return answer;
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
constexpr uintptr_t kLowAddress = uintptr_t{1} << 32;

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
  static constexpr uint64_t kClosed[] = {0xF149'F2CA, 0xF14A, 0xFC00, 0xC629'3E59'39A0'8CEA};  // -1e30, in float16 -inf
  const uint64_t bits = bits_at(mask, index);
  return mask.kind == kBool ? bits == 0 : bits >= kClosed[mask.kind];
}

constexpr int64_t kLooked = 4096;  // entries of a mask that are read at most

// Where row i of all batches and heads begins.
int64_t row_index(const View& v, int64_t i) {
  const int64_t rows = v.sizes[2], heads = v.sizes[1];
  return i / rows / heads * v.tensor.batch + i / rows % heads * v.tensor.head + i % rows * v.tensor.row;
}

// Writes `closed`, the bits of a number, where a bool mask is false, and 0 elsewhere.
template <class Bits>
void write_closed(const View& mask, Bits closed, const View& numbers) {
  const auto& [batches, heads, rows, columns] = mask.sizes;
  for (int64_t i = 0; i < batches * heads * rows; i++) {
    const uint8_t* const from = static_cast<const uint8_t*>(mask.tensor.data) + row_index(mask, i);
    Bits* const to = static_cast<Bits*>(const_cast<void*>(static_cast<const void*>(numbers.tensor.data))) + row_index(numbers, i);
    for (int64_t c = 0; c < columns; c++) to[c * numbers.tensor.column] = from[c * mask.tensor.column] ? 0 : closed;
  }
}

}  // namespace

bool register_torch(nb::handle tensor, nb::handle parameter, nb::handle api, nb::tuple asked, nb::handle recording,
                    nb::handle threads) {
  if (!PyCapsule_IsValid(api.ptr(), "dlpack_exchange_api")) return false;
  exchange = static_cast<const dlpack::Exchange*>(PyCapsule_GetPointer(api.ptr(), "dlpack_exchange_api"));
  tensor_type = reinterpret_cast<PyTypeObject*>(tensor.ptr());
  parameter_type = reinterpret_cast<PyTypeObject*>(parameter.ptr());
  is_neg = nb::object(tensor.attr("is_neg")).release().ptr();
  grad_mode = recording.inc_ref().ptr();
  get_num_threads = threads.inc_ref().ptr();
  watchers = new nb::tuple(asked);  // for as long as the process lives
  shim::get(grad_mode_of_torch, "aoti_torch_grad_mode_is_enabled");
  shim::get(num_threads_of_torch, "torch_get_num_threads");
  return exchange->major == 1;
}

bool is_watched() {
  if (is_plainly_dispatched()) return false;
  for (nb::handle question : *watchers) {
    const nb::object answer = call(question.ptr());
    if (!answer.is_none() && answer.ptr() != Py_False && PyObject_IsTrue(answer.ptr()) != 0) return true;
  }
  return false;
}

bool is_grad_enabled() { return grad_mode_of_torch ? grad_mode_of_torch() : call(grad_mode).ptr() != Py_False; }

int num_threads() {
  uint32_t threads = 0;
  if (num_threads_of_torch && num_threads_of_torch(&threads) == 0) return int(threads);
  return int(PyLong_AsLong(call(get_num_threads).ptr()));
}

bool is_negated(nb::handle tensor) {
  PyObject* const object = tensor.ptr();
  const nb::object answer = nb::steal(PyObject_Vectorcall(is_neg, &object, 1, nullptr));
  if (!answer.is_valid()) PyErr_Clear();
  return answer.ptr() != Py_False;
}

bool read(nb::handle object, View* view) { return look(object, view) && !is_negated(object); }

bool look(nb::handle object, View* view) {
  dlpack::Tensor t;
  const PyTypeObject* const type = Py_TYPE(object.ptr());
  if (type != tensor_type && type != parameter_type) return false;
  if (exchange->look(object.ptr(), &t) != 0) {
    PyErr_Clear();
    return false;
  }
  if (t.device != 1 || t.axes > 4 || !t.data || !t.strides) return false;
  if (reinterpret_cast<uintptr_t>(t.data) < kLowAddress && !has_storage(object.ptr())) return false;
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

bool requires_grad(nb::handle tensor) {
  static PyObject* const name = PyUnicode_InternFromString("requires_grad");
  const nb::object answer = nb::steal(PyObject_GetAttr(tensor.ptr(), name));
  if (!answer.is_valid()) PyErr_Clear();
  return answer.ptr() == Py_True;
}

bool opens_every_row(const View& mask) {
  const auto& [batches, heads, rows, columns] = mask.sizes;
  int64_t left = kLooked;  // most rows are open at their first entry
  for (int64_t i = 0; i < batches * heads * rows; i++) {
    const int64_t row = row_index(mask, i);
    int64_t column = 0;
    while (column < columns && left-- > 0 && closes(mask, row + column * mask.tensor.column)) column++;
    if (column == columns || left < 0) return false;
  }
  return true;
}

void write_as_numbers(const View& mask, const View& numbers) {
  switch (bytes_of(numbers.kind)) {
    case 2: return write_closed<uint16_t>(mask, numbers.kind == kFloat16 ? 0xFC00 : 0xFF80, numbers);
    case 4: return write_closed<uint32_t>(mask, 0xFF80'0000, numbers);
    default: return write_closed<uint64_t>(mask, 0xFFF0'0000'0000'0000, numbers);
  }
}

bool starts_with_0_or_1(const View& view) {
  static constexpr uint64_t one[] = {0x3F80'0000, 0x3F80, 0x3C00, 0x3FF0'0000'0000'0000};
  const uint64_t bits = bits_at(view, 0), sign = uint64_t(1) << (8 * bytes_of(view.kind) - 1);
  return bits == 0 || bits == sign || bits == one[view.kind];
}

}  // namespace clearhead
