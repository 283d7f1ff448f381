// What torch's dispatcher does with a call in this thread: read from its thread-local variable, 2 µs faster than by five
// functions of Python (docs/decisions/0036).
#pragma once
#include <nanobind/nanobind.h>

namespace clearhead {

// Whether no mode, transform, tracer or autocast sees a call. False where that is not known: then Python has to be asked.
bool is_plainly_dispatched();

void bind_dispatch_state(nanobind::module_&);

}  // namespace clearhead
