// The part of the door to Python that plain tensors take.
#pragma once
#include <nanobind/nanobind.h>

namespace clearhead {

void bind_plain(nanobind::module_&);

}  // namespace clearhead
