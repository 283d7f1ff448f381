"""One attention computation, described once: what every kernel is given and what it gives back."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from clearhead.arguments import are_plain, refuse_unreadable
from clearhead.errors import DeviceError, DtypeError, OptionError, ShapeError, shape_text
from clearhead.kernels.tracing import untraced


@dataclass(frozen=True, slots=True)
class Problem:
    """softmax(softcap(Q Kᵀ · scale) + bias, masked) V, already validated.

    Attributes:
        query: (B, H, L, D).
        key: (B, H_kv, S, D); H_kv divides H, query head h reads key head h // (H // H_kv).
        value: (B, H_kv, S, D_v).
        scale: logit multiplier, no unit.
        is_causal: top-left: query i may attend keys 0..i.
        reach: (low, high): query i may attend key j only where low <= j - i <= high; None = no limit on that side.
            A sliding window of w is (1 - w, 0), a causal mask shifted by `past` cached keys is (None, past).
        alibi: (H,) slopes: slope · |i + alibi_offset - j| is taken off the logit of query i and key j, after the soft
            cap (Press et al. 2022); None = nothing.
        alibi_offset: the position of query 0 among the keys.
        allow: boolean, broadcastable to (B, H, L, S), True = may attend; None = everything.
        bias: float, broadcastable to (B, H, L, S), added to the logits; None = nothing.
        softcap: logits become softcap·tanh(logits / softcap) before bias and mask; None = off.
        sinks: (H,) extra logits that take weight and give no value; None = none.
        dropout_p: probability in [0, 1) that a weight is dropped; the rest are scaled by 1/(1-p).
        seed: names the dropout pattern, so that backward meets the same one.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    is_causal: bool = False
    allow: Tensor | None = None
    bias: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout_p: float = 0.0
    seed: int = 0
    reach: tuple[int | None, int | None] = (None, None)
    alibi: Tensor | None = None
    alibi_offset: int = 0

    @property
    def group(self) -> int:
        """How many query heads share one key head; 1 where there are no heads."""
        return _group(self)

    @property
    def band(self) -> tuple[int | None, int | None]:
        """`reach` and `is_causal` together."""
        low, high = self.reach
        if self.is_causal:
            high = 0 if high is None else min(high, 0)
        return low, high


@dataclass(frozen=True, slots=True)
class Result:
    """What a forward pass gives.

    Attributes:
        out: (B, H, L, D_v), query's dtype; 0 for a row that may attend nothing.
        lse: (B, H, L), float32 or wider, natural log of the row's whole normaliser: the sum of exp(logits), and of
            exp(sink) where there are sinks. So weights are exp(logits - lse) for every problem. -inf for a row that
            may attend nothing and has no sink. Kernels give all digits their backward pass needs; `run` rounds them to
            float32 beside float32 tensors.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of query, key, value and, where the problem has them, bias, sinks and alibi, in their own shapes.

    Those of bias and alibi may be None where these do not require one.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None
    sinks: Tensor | None = None
    alibi: Tensor | None = None


@untraced
def _group(problem: Problem) -> int:
    return divide_heads(problem.query.shape[1], problem.key.shape[1])


def divide_heads(heads: int, kv_heads: int) -> int:
    """How many query heads share one of the key heads; 1 where there are none of either, -1 where they do not divide.

    >>> divide_heads(6, 3), divide_heads(0, 0), divide_heads(0, 3), divide_heads(6, 4), divide_heads(6, 0)
    (2, 1, 0, -1, -1)
    """
    if kv_heads == 0:
        return 1 if heads == 0 else -1
    return heads // kv_heads if heads % kv_heads == 0 else -1


def carries_tangent(*tensors: Tensor | None) -> bool:
    """Whether forward-mode differentiation sends derivatives along with a tensor, which only torch's own steps pass on.

    >>> carries_tangent(torch.ones(2), None)
    False
    """
    if forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def is_negated(*tensors: Tensor | None) -> bool:
    """Whether a tensor is one whose memory holds the negative of its numbers, as `z.conj().imag` is.

    >>> is_negated(torch.ones(2), None), is_negated(torch.ones(2, dtype=torch.complex64).conj().imag)
    (False, True)
    """
    return any(t is not None and t.is_neg() for t in tensors)


def has_own_memory(*tensors: Tensor | None) -> bool:
    """Whether each tensor's numbers lie at its address: not so for a class that only wraps others, nor in torch.vmap,
    nor where a tensor's memory was given back (`untyped_storage().resize_(0)`).

    >>> has_own_memory(torch.ones(2), None)
    True
    """
    for tensor in tensors:
        if tensor is None:
            continue
        if not torch._C._has_storage(tensor):
            return False
        kind = type(tensor)
        if kind is Tensor or kind is torch.nn.Parameter:
            address = tensor.data_ptr()
            if address < _LOW and tensor.numel() > 0 and not (tensor.is_meta or _has_storage(tensor)):
                return False
            continue
        if torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python):
            return False
    return True


# Torch adds a view's offset to the address of its storage, which is 0 where the storage has no memory.
_LOW = 1 << 32


def _has_storage(tensor: Tensor) -> bool:
    try:
        return tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:  # of a functional tensor
        return False


def validate(problem: Problem) -> None:
    """Check that a problem's tensors fit each other. Costs a few microseconds.

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: says what was wrong, what was expected and how to fix it.
    """
    query, key, value = problem.query, problem.key, problem.value
    extras = {name: getattr(problem, name) for name in ("allow", "bias", "sinks", "alibi")}
    if not are_plain(query, key, value, *extras.values()):
        refuse_unreadable(query=query, key=key, value=value, **extras)
    dtype = query.dtype
    if not (query.dim() == key.dim() == value.dim() == 4 and key.dtype is dtype and value.dtype is dtype):
        _explain_axes_or_dtype(problem)
    if not dtype.is_floating_point:
        _explain_axes_or_dtype(problem)
    (batch, heads, _, width), key_shape, value_shape = query.shape, key.shape, value.shape
    fits = key_shape[3] == width and key_shape[0] == batch and value_shape[:3] == key_shape[:3]
    if not fits or divide_heads(heads, key_shape[1]) < 0:
        _explain_shapes(problem)
    if not (query.is_cpu and key.is_cpu and value.is_cpu):
        _check_device(problem)
    _check_extras(problem)


def _explain_axes_or_dtype(problem: Problem) -> None:
    query = problem.query
    for name in ("query", "key", "value"):
        tensor = getattr(problem, name)
        if tensor.dim() != 4:
            raise ShapeError(
                f"{name} has {tensor.dim()} axes, expected 4 ({shape_text(name, tensor.shape, 'B,H,L,D')}). "
                f"Add the missing axes with unsqueeze."
            )
        if tensor.dtype != query.dtype or not tensor.dtype.is_floating_point:
            raise DtypeError(
                f"{name} is {tensor.dtype} and query is {query.dtype}; expected one floating-point dtype. "
                f"Convert with .to()."
            )


def _explain_shapes(problem: Problem) -> None:
    query, key, value = problem.query, problem.key, problem.value
    if key.shape[3] != query.shape[3]:
        raise ShapeError(
            f"key has head_dim {key.shape[3]}, query has head_dim {query.shape[3]} "
            f"({shape_text('key', key.shape, 'B,H,S,D')}). Use the same embed_dim // num_heads for both projections."
        )
    if key.shape[0] != query.shape[0] or value.shape[:3] != key.shape[:3]:
        raise ShapeError(
            f"query, key and value must share B, and key and value must share H and S "
            f"({shape_text('query', query.shape, 'B,H,L,D')}; {shape_text('key', key.shape, 'B,H,S,D')}; "
            f"{shape_text('value', value.shape, 'B,H,S,D')})."
        )
    raise ShapeError(
        f"key has {key.shape[1]} heads, which does not divide query's {query.shape[1]} "
        f"({shape_text('key', key.shape, 'B,H,S,D')}). Each key head serves the same number of query heads."
    )


def _broadcasts(mask: Tensor, full: tuple[int, ...]) -> bool:
    return mask.dim() <= 4 and all(
        size in (1, want) for size, want in zip(reversed(mask.shape), reversed(full), strict=False)
    )


def _check_extras(problem: Problem) -> None:
    allow, bias = problem.allow, problem.bias
    heads = problem.query.shape[1]
    if allow is not None or bias is not None:
        full = (*problem.query.shape[:3], problem.key.shape[2])
        for name, mask in (("allow", allow), ("bias", bias)):
            if mask is not None and not _broadcasts(mask, full):
                raise ShapeError(
                    f"{name} does not broadcast to (B, H, L, S) = {full} ({shape_text(name, mask.shape)}). "
                    f"Give each axis its full size or 1."
                )
    if allow is not None and allow.dtype != torch.bool:
        raise DtypeError(f"allow is {allow.dtype}, expected torch.bool (True = may attend). Use bias to add.")
    if bias is not None and not bias.is_floating_point():
        raise DtypeError(f"bias is {bias.dtype}, expected a floating-point dtype. Use allow for a boolean mask.")
    for name, each in (("sinks", problem.sinks), ("alibi", problem.alibi)):
        if each is not None and (each.shape != (heads,) or not each.is_floating_point()):
            raise ShapeError(
                f"{name} must be floating point, one a query head, shape ({heads},) "
                f"({shape_text(name, each.shape, 'H')}, {each.dtype})."
            )
    if not 0 <= problem.dropout_p < 1:
        raise OptionError(f"dropout_p is {problem.dropout_p}, expected 0 <= dropout_p < 1.")
    if problem.softcap is not None and not problem.softcap > 0:
        raise OptionError(f"softcap is {problem.softcap}, expected a positive number, or None for no cap.")
    extras = (allow, bias, problem.sinks, problem.alibi)
    if any(extra is not None and extra.device != problem.query.device for extra in extras):
        _check_device(problem)


def _check_device(problem: Problem) -> None:
    device = problem.query.device
    for name in ("key", "value", "allow", "bias", "sinks", "alibi"):
        tensor = getattr(problem, name)
        if tensor is not None and tensor.device != device:
            raise DeviceError(
                f"{name} is on {tensor.device}, query is on {device}. Move them to one device with .to()."
            )
