"""Which functions work on each position alone: a module that calls no other is no attention, whatever its name."""

from typing import Any

from torch import Tensor

_ALONE = frozenset(
    """linear layer_norm rms_norm dropout add sub mul div true_divide neg pow square sqrt rsqrt exp abs clamp where
    gelu relu silu tanh sigmoid softplus hardtanh leaky_relu elu selu mish hardswish relu6 glu prelu erf identity
    to type type_as float double half bfloat16 clone contiguous detach view reshape transpose permute squeeze unsqueeze
    flatten unflatten chunk split expand expand_as size dim numel __get__ __set__ __getitem__ is_floating_point
    is_complex stride element_size is_contiguous data_ptr t movedim swapaxes broadcast_to masked_fill
    zeros_like ones_like empty_like full_like rsub eq ne lt le gt ge logical_not __len__ __bool__ __repr__ requires_grad_
    _has_compatible_shallow_copy_type get_device is_nonzero item any all nelement addcmul is_inference
    """.split()
)
_OVER_AN_AXIS = frozenset("mean sum var std var_mean norm amax amin max softmax log_softmax normalize cat".split())


def mixes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a torch function may mix positions: more than one axis is left alone, but for its last."""
    name = getattr(func, "__name__", "")
    name = name.strip("_") if name.startswith("__") and name not in _ALONE else name.removesuffix("_")
    name = name[1:] if name[:1] in "ri" and name[1:] in ("add", "sub", "mul", "div", "truediv", "pow") else name
    if name in _ALONE or name == "truediv":
        return False
    if name not in _OVER_AN_AXIS or name in ("softmax", "log_softmax"):
        return True
    given = [arg for arg in (*args, *kwargs.values()) if isinstance(arg, Tensor)]
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    return not (isinstance(axis, int) and given and axis in (-1, given[0].dim() - 1))
