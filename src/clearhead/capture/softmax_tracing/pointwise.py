"""Find functions that act on each position alone. A module that calls no others is not attention, whatever its name."""

from typing import Any

from torch import Tensor

_NAMES = """
linear layer_norm rms_norm dropout add sub mul div true_divide truediv neg pow square sqrt rsqrt exp abs clamp where
gelu relu silu tanh sigmoid softplus hardtanh leaky_relu elu selu mish hardswish relu6 glu prelu erf to type type_as
float double half bfloat16 clone contiguous detach view reshape transpose permute squeeze unsqueeze flatten unflatten
chunk split expand expand_as size dim numel __get__ __set__ __getitem__ is_floating_point is_complex stride
element_size is_contiguous data_ptr t movedim swapaxes broadcast_to masked_fill zeros_like ones_like empty_like
full_like eq ne lt le gt ge logical_not __len__ __bool__ requires_grad item any all nelement addcmul is_inference
"""
_LOCAL = """
conv1d conv2d conv3d batch_norm avg_pool1d avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d
"""
_ALONE = frozenset(_NAMES.split())
_NEIGHBOURS = frozenset(_LOCAL.split())
_LAST_AXIS = frozenset(("mean", "sum", "var", "std", "norm", "vector_norm", "amax", "amin", "normalize", "cat"))


def mixes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], *, part: bool = False) -> bool:
    """Whether a torch function may mix positions: it is not known to act on each one alone, or on the last axis.

    Args:
        func, args, kwargs: the call.
        part: whether it is called in a part of an attention, where convolutions make queries, keys and values (CvT).
    """
    name = getattr(func, "__name__", "")
    if name in _ALONE or (part and name in _NEIGHBOURS):
        return False
    name = name.strip("_")
    if name in _ALONE or (name[:1] in ("i", "r") and name[1:] in _ALONE):  # __iadd__, __rsub__
        return False
    if name not in _LAST_AXIS:
        return True
    given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return not (isinstance(axis, int) and (axis == -1 or (bool(given) and axis == given[0].dim() - 1)))
