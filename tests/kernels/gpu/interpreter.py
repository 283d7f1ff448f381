"""A faster reduction for Triton's interpreter, which calls the combining function once for each element.

Sorting reduces with exclusive or, for which the interpreter has no function of numpy. Combining whole slices gives the
same numbers, and takes a second where single elements take minutes.
"""

from typing import Any

import numpy as np


def combine_slices(reduction: Any, inputs: tuple[Any, ...]) -> list[Any]:
    """Replace `ReduceOps.generic_reduce` of the interpreter, which is private and may change with any version."""
    whole, keeps = reduction.axis is None, reduction.keep_dims
    axes = inputs[0].handle.data.ndim
    inputs, axis = reduction.unravel(inputs, reduction.axis)
    slices = [[reduction.to_tensor(part, x.dtype) for part in np.moveaxis(x.handle.data, axis, 0)] for x in inputs]
    total, *others = zip(*slices, strict=True)
    for each in others:
        combined = reduction.combine_fn.fn(*total, *each)
        total = combined if isinstance(combined, tuple) else (combined,)
    kept = tuple(range(axes)) if whole else (axis,)
    numbers = [np.expand_dims(x.handle.data.reshape(x.shape), kept) if keeps else x.handle.data for x in total]
    return [reduction.to_tensor(number, x.dtype) for number, x in zip(numbers, inputs, strict=True)]
