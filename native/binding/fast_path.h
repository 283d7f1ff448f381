// Functions of the Python module for calls on plain tensors.
#pragma once
#include <nanobind/nanobind.h>

namespace clearhead {

void bind_fast_path(nanobind::module_&);

}  // namespace clearhead
