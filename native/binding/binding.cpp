// The Python module. Its classes have the fields of arguments.h as attributes; clearhead/kernels/native/kernel.py sets them.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <type_traits>

#include "binding/costs.h"
#include "binding/dispatch_state.h"
#include "binding/fast_path.h"
#include "binding/override/override.h"
#include "dispatch/cpu.h"
#include "dispatch/dispatch.h"

namespace nb = nanobind;
using namespace clearhead;

namespace {

// A tensor is (address, batch stride, head stride, row stride, column stride) in Python.
Tensor tensor(const nb::tuple& t) {
  const auto stride = [&t](size_t i) { return nb::cast<int64_t>(t[i]); };
  return {reinterpret_cast<void*>(nb::cast<uintptr_t>(t[0])), stride(1), stride(2), stride(3), stride(4)};
}

nb::tuple as_tuple(const Tensor& t) {
  return nb::make_tuple(reinterpret_cast<uintptr_t>(t.data), t.batch, t.head, t.row, t.column);
}

// Make an attribute of one field: a tensor as a tuple, a pointer as an address, a dtype as its number.
template <class Struct, class Type>
void bind_field(nb::class_<Struct>& cls, const char* name, Type Struct::* field) {
  if constexpr (std::is_same_v<Type, Tensor>)
    cls.def_prop_rw(name, [field](const Struct& s) { return as_tuple(s.*field); },
                    [field](Struct& s, const nb::tuple& value) { s.*field = tensor(value); });
  else if constexpr (std::is_pointer_v<Type>)
    cls.def_prop_rw(name, [field](const Struct& s) { return reinterpret_cast<uintptr_t>(s.*field); },
                    [field](Struct& s, uintptr_t address) { s.*field = reinterpret_cast<Type>(address); });
  else if constexpr (std::is_enum_v<Type>)
    cls.def_prop_rw(name, [field](const Struct& s) { return int(s.*field); },
                    [field](Struct& s, int value) { s.*field = static_cast<Type>(value); });
  else
    cls.def_rw(name, field);
}

template <class Struct>
nb::class_<Struct> bind_struct(nb::module_& m, const char* name) {
  return nb::class_<Struct>(m, name).def(nb::init<>());
}

#define BIND(type, name, value) bind_field(cls, #name, &Bound::name);

void bind_structs(nb::module_& m) {
  {
    using Bound = Attention;
    auto cls = bind_struct<Bound>(m, "Attention");
    CLEARHEAD_ATTENTION(BIND)
  }
  {
    using Bound = Gradients;
    auto cls = bind_struct<Bound>(m, "Gradients");
    CLEARHEAD_GRADIENTS(BIND)
  }
  {
    using Bound = Statistics;
    auto cls = bind_struct<Bound>(m, "Statistics");
    CLEARHEAD_STATISTICS(BIND)
  }
  {
    using Bound = Linear;
    auto cls = bind_struct<Bound>(m, "Linear");
    CLEARHEAD_LINEAR(BIND)
  }
}

#undef BIND

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "Attention kernels for the CPU. Call them through clearhead.kernels only: nothing is checked here.";

  // A table of costs lives as long as the process, which nanobind would report as a leak wherever a traceback does, too.
  nb::set_leak_warnings(false);

  bind_structs(m);

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

  m.def("cpu_family", &cpu_family, "The family of an x86 CPU, as in /proc/cpuinfo; 0 elsewhere.");

  m.def("peak", [](int target, int threads, int64_t steps) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    return run_peak(t, steps, threads);
  }, "Floating-point operations done on registers alone: time it to know the machine's peak.");

  m.def("forward", [](int target, int threads, const Attention& p, const Statistics* statistics) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_forward(t, p, threads, statistics);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg().none() = nb::none());

  m.def("backward", [](int target, int threads, const Attention& p, const Gradients& g) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_backward(t, p, g, threads);
  });

  m.def("statistics", [](int target, int threads, const Attention& p, const Statistics& s) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_statistics(t, p, s, threads);
  });

  m.def("weights", [](int target, int threads, const Attention& p, const nb::tuple& weights, const Statistics* statistics) {
    const Tensor to = tensor(weights);
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_weights(t, p, to, threads, statistics);
  }, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none() = nb::none());

  m.def("linear", [](int target, int threads, const Linear& p) {
    const Target& t = target_at(target);
    nb::gil_scoped_release unlocked;
    run_linear(t, p, threads);
  });

  bind_costs(m);
  bind_dispatch_state(m);
  bind_fast_path(m);
  bind_overrides(m);
}
