// The Python module. Tensors are tuples (address, batch, head, row, column), checked by clearhead/kernels/native.py.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "binding/fast_path.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"

namespace nb = nanobind;
using namespace clearhead;

namespace {

int64_t integer(const nb::tuple& t, size_t i) { return nb::cast<int64_t>(t[i]); }

Tensor tensor(const nb::object& o) {
  if (o.is_none()) return {};
  const nb::tuple t = nb::cast<nb::tuple>(o);
  return {reinterpret_cast<void*>(nb::cast<uintptr_t>(t[0])), integer(t, 1), integer(t, 2), integer(t, 3),
          integer(t, 4)};
}

// (batch, heads, kv_heads, length, keys, width, value_width, dtype, reach_low, reach_high); (query, key, value, out, lse,
// dtype of lse); and (allow, bias, bias dtype, softcap, address of sinks, seed, drop_below, keep_factor, address of ALiBi's slopes,
// their offset) or None.
Attention attention(const nb::tuple& sizes, double scale, const nb::tuple& tensors, const nb::object& extras) {
  Attention p = {};
  p.batch = integer(sizes, 0);
  p.heads = integer(sizes, 1);
  p.kv_heads = integer(sizes, 2);
  p.length = integer(sizes, 3);
  p.keys = integer(sizes, 4);
  p.width = integer(sizes, 5);
  p.value_width = integer(sizes, 6);
  p.dtype = static_cast<Dtype>(integer(sizes, 7));
  p.reach_low = integer(sizes, 8);
  p.reach_high = integer(sizes, 9);
  p.scale = scale;
  p.query = tensor(tensors[0]);
  p.key = tensor(tensors[1]);
  p.value = tensor(tensors[2]);
  p.out = tensor(tensors[3]);
  p.lse = tensor(tensors[4]);
  p.lse_dtype = static_cast<Dtype>(integer(tensors, 5));
  if (extras.is_none()) return p;
  const nb::tuple e = nb::cast<nb::tuple>(extras);
  p.allow = tensor(e[0]);
  p.bias = tensor(e[1]);
  p.bias_dtype = static_cast<Dtype>(integer(e, 2));
  p.softcap = nb::cast<double>(e[3]);
  p.sinks = reinterpret_cast<const void*>(nb::cast<uintptr_t>(e[4]));
  const uint64_t seed = nb::cast<uint64_t>(e[5]);
  p.seed_low = uint32_t(seed);
  p.seed_high = uint32_t(seed >> 32);
  p.drop_below = uint32_t(integer(e, 6));
  p.keep_factor = nb::cast<double>(e[7]);
  p.alibi = reinterpret_cast<const void*>(nb::cast<uintptr_t>(e[8]));
  p.alibi_offset = integer(e, 9);
  return p;
}

template <class T>
T* address(const nb::tuple& t, size_t i) {
  return reinterpret_cast<T*>(nb::cast<uintptr_t>(t[i]));
}

// In the order of `Statistics`; addresses, 0 where not wanted.
Statistics statistics(const nb::tuple& t) {
  Statistics s = {};
  s.first_row = integer(t, 0);
  s.last_row = integer(t, 1);
  s.first_key = integer(t, 2);
  s.last_key = integer(t, 3);
  s.entropy = address<float>(t, 4);
  s.maximum = address<float>(t, 5);
  s.squares = address<float>(t, 6);
  s.mass = address<float>(t, 7);
  s.distance = address<float>(t, 8);
  s.spread = address<float>(t, 9);
  s.offset = integer(t, 10);
  s.received = address<float>(t, 11);
  s.top = integer(t, 12);
  s.top_weights = address<float>(t, 13);
  s.top_keys = address<int64_t>(t, 14);
  s.cells_down = integer(t, 15);
  s.cells_across = integer(t, 16);
  s.row_edges = address<int64_t>(t, 17);
  s.key_edges = address<int64_t>(t, 18);
  s.map = address<float>(t, 19);
  s.by_maximum = integer(t, 20) != 0;
  return s;
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Attention kernels for the CPU. Call them through clearhead.kernels only: nothing is checked here.";

  m.def("targets", [] {
    nb::list all;
    for (int i = 0; i < target_count(); i++) {
      const Row& row = target_at(i).row;
      nb::dict entry;
      entry["name"] = row.name;
      entry["lanes"] = row.lanes;
      entry["needs"] = row.needs;
      entry["dtypes"] = row.dtypes;
      entry["flushes"] = row.flushes;
      entry["for_tests"] = row.for_tests;
      all.append(entry);
    }
    return all;
  }, "The rows of the compiled targets, best first.");

  m.def("cpu_supports", [](const std::string& features) { return cpu_supports(features.c_str()); },
        "Whether this CPU has every feature of a list such as \"avx2,fma\"; an unknown name is not supported.");

  m.def("cpu_features", [] {
    nb::list all;
    for (const char* const* name = kCpuFeatures; *name; name++)
      if (cpu_supports(*name)) all.append(*name);
    return all;
  }, "The features that this CPU has, of those that the library knows.");

  m.def("peak", [](int target, int threads, int64_t steps) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    return run_peak(t, steps, threads);
  }, "Floating-point operations done on registers alone: time it to know the machine's peak.");

  m.def("forward", [](int target, int threads, nb::tuple sizes, double scale, nb::object extras, nb::tuple tensors,
                      nb::object wanted) {
    const Attention p = attention(sizes, scale, tensors, extras);
    const Target& t = target_at(target);
    Statistics found = {};
    if (!wanted.is_none()) found = statistics(nb::cast<nb::tuple>(wanted));
    const Statistics* const also = wanted.is_none() ? nullptr : &found;
    nb::gil_scoped_release unlocked;
    run_forward(t, p, threads, also);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg() = nb::none());

  // gradients: (grad_out, grad_lse or None, grad_query, grad_key, grad_value, grad_bias or None, addresses of the rows'
  // shares in the gradients of sinks and slopes or 0)
  m.def("backward", [](int target, int threads, nb::tuple sizes, double scale, nb::object extras, nb::tuple tensors,
                       nb::tuple gradients) {
    const Attention p = attention(sizes, scale, tensors, extras);
    const Backward g = {tensor(gradients[0]), tensor(gradients[1]), tensor(gradients[2]), tensor(gradients[3]),
                        tensor(gradients[4]), tensor(gradients[5]), address<float>(gradients, 6),
                        address<float>(gradients, 7)};
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_backward(t, p, g, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());

  // tensors: (query, key, None, None, lse, dtype of lse)
  m.def("statistics", [](int target, int threads, nb::tuple sizes, double scale, nb::object extras, nb::tuple tensors,
                         nb::tuple wanted) {
    const Attention p = attention(sizes, scale, tensors, extras);
    const Statistics s = statistics(wanted);
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_statistics(t, p, s, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());

  m.def("weights", [](int target, int threads, nb::tuple sizes, double scale, nb::object extras, nb::tuple tensors,
                      nb::tuple weights) {
    const Attention p = attention(sizes, scale, tensors, extras);
    const Tensor to = tensor(weights);
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_weights(t, p, to, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg());

  // sizes: (rows, inputs, outputs, length, width, dtype), tensors: (x, weight, out)
  m.def("linear", [](int target, int threads, nb::tuple sizes, nb::tuple tensors, uintptr_t bias) {
    Linear p = {};
    p.rows = integer(sizes, 0);
    p.inputs = integer(sizes, 1);
    p.outputs = integer(sizes, 2);
    p.length = integer(sizes, 3);
    p.width = integer(sizes, 4);
    p.dtype = static_cast<Dtype>(integer(sizes, 5));
    p.x = tensor(tensors[0]);
    p.weight = tensor(tensors[1]);
    p.out = tensor(tensors[2]);
    p.bias = reinterpret_cast<const void*>(bias);
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_linear(t, p, threads);
  });

  bind_fast_path(m);
}
