// The CPU kernels of torch's attention operators while clearhead.accelerate() is on, registered through torch's stable C
// interface (docs/decisions/0036).
#pragma once
#include <nanobind/nanobind.h>

namespace clearhead {

void bind_overrides(nanobind::module_&);

}  // namespace clearhead
