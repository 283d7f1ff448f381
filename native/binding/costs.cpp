#include "binding/costs.h"

#include <atomic>
#include <cmath>

namespace nb = nanobind;

namespace clearhead {

namespace {

std::atomic<bool> forced{false};
// Python objects: a function that gives the table for a forced target or None, the context variable of that target, and
// the table for None. A table that was replaced is kept, because a thread without the GIL may be reading it.
PyObject *ask = nullptr, *target = nullptr, *unforced = nullptr;
std::atomic<const CostTable*> unforced_table{nullptr};

int dtype_of(nb::handle number) {
  const int dtype = nb::cast<int>(number);
  if (dtype < 0 || dtype > kFloat64) throw nb::value_error("there is no such dtype");
  return dtype;
}

}  // namespace

CostTable::CostTable(const nb::list& computed, const nb::list& tasks, double describing) : describing_(describing) {
  for (nb::handle dtype : computed) computed_[dtype_of(dtype)] = true;
  for (nb::handle each : tasks) {
    const nb::tuple task = nb::cast<nb::tuple>(each);
    const auto microseconds = [&task](size_t i) { return nb::cast<double>(task[i]); };
    tasks_[dtype_of(task[0])][nb::cast<bool>(task[1])].push_back(
        {nb::cast<int64_t>(task[2]), nb::cast<int64_t>(task[3]), microseconds(4), microseconds(5), microseconds(6)});
  }
}

double CostTable::saved(int dtype, bool learns, double batch_heads, int64_t queries, int64_t keys, int64_t width,
                        int threads) const {
  for (const Task& task : tasks_[dtype][learns]) {
    if (queries > task.queries || keys > task.keys) continue;
    const double heads = std::ceil(batch_heads / threads), multiply_adds = 2.0 * batch_heads * queries * keys * width / threads;
    return task.call + task.head * heads + task.work * multiply_adds / 1e6;
  }
  return -INFINITY;
}

bool may_be_forced() { return forced; }

nb::object costs_in_use() {
  if (unforced && !forced) return nb::borrow(unforced);
  nb::object table = nb::handle(ask)(nb::handle(target).attr("get")());
  if (!forced) {
    unforced = nb::object(table).release().ptr();
    unforced_table = nb::inst_ptr<CostTable>(table);
  }
  return table;
}

const CostTable* unforced_costs() { return forced ? nullptr : unforced_table.load(); }

void bind_costs(nb::module_& m) {
  nb::class_<CostTable>(m, "CostTable")
      .def(nb::init<const nb::list&, const nb::list&, double>())
      .def("saved", [](const CostTable& table, int dtype, bool learns, double batch_heads, int64_t queries, int64_t keys,
                       int64_t width, int threads) -> nb::object {
        if (!table.computes(dtype)) return nb::none();
        return nb::float_(table.saved(dtype, learns, batch_heads, queries, keys, width, threads));
      }, "The microseconds that torch's function saves: negative where ours is faster, -inf where no costs are known; None where "
         "no target has the dtype.");

  m.def("register_costs", [](nb::handle table_of, nb::handle forced_target) {
    ask = table_of.inc_ref().ptr();
    target = forced_target.inc_ref().ptr();
  }, "Register a function that gives the table for a forced target, and the context variable of that target.");

  m.def("forget_costs", [] {
    unforced = nullptr;
    unforced_table = nullptr;
  }, "Ask that function again at the next call.");

  m.def("expect_forced_targets", [] { forced = true; }, "Ask whether a CPU target is forced from now on.");
}

}  // namespace clearhead
