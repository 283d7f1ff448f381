// The one door to Python. Tensors come as tuples (address, batch, head, row, column): five integers are ten times
// cheaper to pass than an array object, and clearhead/kernels/native.py has checked them already.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include "dispatch.h"

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

const Target& target_named(int index) {
  if (index < 0 || index >= target_count()) throw nb::index_error("no such target");
  return target_at(index);
}

Attention attention(const nb::tuple& sizes, int dtype, float scale, int64_t reach_low, int64_t reach_high,
                    const nb::object& query, const nb::object& key, const nb::object& value, const nb::object& out,
                    const nb::object& lse) {
  Attention p;
  p.batch = integer(sizes, 0);
  p.heads = integer(sizes, 1);
  p.kv_heads = integer(sizes, 2);
  p.length = integer(sizes, 3);
  p.keys = integer(sizes, 4);
  p.width = integer(sizes, 5);
  p.value_width = integer(sizes, 6);
  p.dtype = static_cast<Dtype>(dtype);
  p.scale = scale;
  p.reach_low = reach_low;
  p.reach_high = reach_high;
  p.query = tensor(query);
  p.key = tensor(key);
  p.value = tensor(value);
  p.out = tensor(out);
  p.lse = tensor(lse);
  return p;
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Attention kernels for the CPU. Call them through clearhead.kernels only: nothing is checked here.";

  m.def("targets", [] {
    nb::list all;
    for (int i = 0; i < target_count(); i++)
      all.append(nb::make_tuple(target_at(i).name, target_at(i).lanes, supported(target_at(i))));
    return all;
  }, "(name, queries in a tile, whether this CPU can run it), best first.");

  m.def("forward", [](int target, int threads, nb::tuple sizes, int dtype, float scale, int64_t reach_low,
                      int64_t reach_high, nb::object query, nb::object key, nb::object value, nb::object out,
                      nb::object lse) {
    const Attention p = attention(sizes, dtype, scale, reach_low, reach_high, query, key, value, out, lse);
    const Target& t = target_named(target);
    nb::gil_scoped_release unlocked;
    run_forward(t, p, threads);
  });

  m.def("backward", [](int target, int threads, nb::tuple sizes, int dtype, float scale, int64_t reach_low,
                       int64_t reach_high, nb::object query, nb::object key, nb::object value, nb::object out,
                       nb::object lse, nb::object grad_out, nb::object grad_lse, nb::object grad_query,
                       nb::object grad_key, nb::object grad_value) {
    const Attention p = attention(sizes, dtype, scale, reach_low, reach_high, query, key, value, out, lse);
    const Backward g = {tensor(grad_out), tensor(grad_lse), tensor(grad_query), tensor(grad_key), tensor(grad_value)};
    const Target& t = target_named(target);
    nb::gil_scoped_release unlocked;
    run_backward(t, p, g, threads);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
     nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg());
}
