"""torch's operators (`torch.ops.aten.…`), of which a module of `torch.export` consists, as torch's functions."""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._ops import OpOverload

# Operators that a decomposition leaves -> the function with the same arguments.
_DECOMPOSED = {
    "_softmax": torch.softmax,
    "special_softmax": torch.softmax,
    "_unsafe_view": Tensor.view,
    "_to_copy": Tensor.to,
    "alias": Tensor.detach,
}

_FUNCTIONAL = ("scaled_dot_product_attention", "linear", "embedding", "conv1d", "conv2d", "conv3d")


def as_function(func: Any) -> Any:
    """Return the torch function that takes an operator's arguments; any other function, or no such operator, as it is.

    >>> as_function(torch.ops.aten.bmm.default) is torch.bmm
    True
    """
    return _of_operator(func) if isinstance(func, OpOverload) else func


@lru_cache(maxsize=1024)
def _of_operator(operator: OpOverload) -> Any:
    library, _, name = operator._schema.name.partition("::")
    if library != "aten":
        return operator
    if name in _DECOMPOSED:
        return _DECOMPOSED[name]
    places = (F, torch, Tensor) if name in _FUNCTIONAL else (torch, Tensor)
    return next((getattr(place, name) for place in places if hasattr(place, name)), operator)
