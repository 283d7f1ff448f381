"""The inputs and outputs of every kernel: `Problem`, `Result` and `Gradients`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from clearhead.arguments import are_plain, refuse_unreadable
from clearhead.errors import DeviceError, DtypeError, OptionError, ShapeError, shape_text
from clearhead.kernels.tracing import untraced
from clearhead.spec import Attention, divide_heads
from clearhead.spec import validate as validate_attention


@dataclass(frozen=True, slots=True, init=False)
class Problem:
    """One attention over its tensors: softmax(attention(Q Kᵀ)) V.

    Attributes:
        query: (B, H, L, D).
        key: (B, H_kv, S, D); H_kv divides H, query head h reads key head h // (H // H_kv).
        value: (B, H_kv, S, D_v).
        attention: everything between Q Kᵀ and the weights.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attention: Attention

    def __init__(
        self, query: Tensor, key: Tensor, value: Tensor, attention: Attention | float = 1.0, **options: Any
    ) -> None:
        """Make a problem from an attention, or from a scale and the options of `Attention.of`."""
        if not isinstance(attention, Attention):
            attention = Attention.of(options.pop("scale", attention), **options)
        object.__setattr__(self, "query", query)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "attention", attention)

    def change(self, **fields: Any) -> Problem:
        """Return a copy with other tensors, or other fields of its attention."""
        own = {name: fields.pop(name) for name in ("query", "key", "value") if name in fields}
        return replace(self, **own, attention=replace(self.attention, **fields) if fields else self.attention)

    def join_biases(self) -> Problem:
        """Return a copy with `key_bias` added into `bias`, as kernels expect it."""
        if self.attention.key_bias is None:
            return self
        return replace(self, attention=self.attention.join_biases())

    @property
    def group(self) -> int:
        """How many query heads share one key head; 1 if there are no heads."""
        return _group(self)

    def per_query_head(self, grouped: Tensor) -> Tensor:
        """Return keys or values (B, H_kv, S, X) with each head repeated for its query heads, (B, H, S, X)."""
        return grouped if self.group == 1 else grouped.repeat_interleave(self.group, 1)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S)."""
        batch, heads, length, _ = self.query.shape
        return batch, heads, length, self.key.shape[2]

    def learns(self) -> bool:
        """Return whether gradients are recorded and flow to one of its tensors."""
        if not torch.is_grad_enabled():
            return False
        return any(t.requires_grad for t in (self.query, self.key, self.value)) or bool(self.attention.learning())


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a forward pass.

    Attributes:
        out: (B, H, L, D_v), query's dtype; 0 for a row that may attend nothing.
        lse: (B, H, L), float32 or wider, natural log of the row's normaliser: the sum of exp(logits), and of exp(sink)
            if there are sinks. So weights are exp(logits - lse) for every problem. -inf for a row that may attend
            nothing and has no sink. Kernels return the precision that their backward pass needs; `run` rounds it to
            float32 for float32 tensors.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of query, key, value and of the attention's fields, by name, each in its own shape and dtype.

    A field that does not require a gradient may be missing.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    attention: Mapping[str, Tensor] = field(default_factory=dict)


@untraced
def _group(problem: Problem) -> int:
    return divide_heads(problem.query.shape[1], problem.key.shape[1])


def carries_tangent(*tensors: Tensor | None) -> bool:
    """Return whether a tensor has a tangent of forward-mode differentiation, which only torch's operators propagate.

    >>> carries_tangent(torch.ones(2), None)
    False
    """
    if forward_ad._current_level < 0:
        return False
    return any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def is_negated(*tensors: Tensor | None) -> bool:
    """Return whether a tensor's memory holds the negatives of its numbers, as that of `z.conj().imag` does.

    >>> is_negated(torch.ones(2), None), is_negated(torch.ones(2, dtype=torch.complex64).conj().imag)
    (False, True)
    """
    return any(t is not None and t.is_neg() for t in tensors)


def has_own_memory(*tensors: Tensor | None) -> bool:
    """Return whether each tensor's numbers are at its address.

    False for a class that wraps other tensors, inside torch.vmap, and if a tensor's memory was freed
    (`untyped_storage().resize_(0)`).

    >>> has_own_memory(torch.ones(2), None)
    True
    """
    for tensor in tensors:
        if tensor is None:
            continue
        if not torch._C._has_storage(tensor):
            return False
        cls = type(tensor)
        if cls is Tensor or cls is torch.nn.Parameter:
            address = tensor.data_ptr()
            if address < _LOW and tensor.numel() > 0 and not (tensor.is_meta or _has_storage(tensor)):
                return False
            continue
        if torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.Python):
            return False
    return True


# Torch adds a view's offset to the address of its storage, which is 0 if the storage has no memory.
_LOW = 1 << 32


def _has_storage(tensor: Tensor) -> bool:
    try:
        return tensor.untyped_storage().data_ptr() != 0
    except RuntimeError:  # raised for a functional tensor
        return False


def memory_reason(*tensors: Tensor | None) -> str | None:
    """Return why a kernel cannot read some tensors at their addresses, in one line; None if it can."""
    if not has_own_memory(*tensors):
        return "a tensor has no memory: it is inside torch.vmap, or its class wraps other tensors"
    if carries_tangent(*tensors):
        return "the tensors carry tangents of forward-mode differentiation, which it does not propagate"
    if is_negated(*tensors):
        return "a tensor's memory holds the negative of its numbers; call .resolve_neg() on it"
    return None


def contiguous_rows(tensor: Tensor) -> Tensor:
    """Return a tensor whose memory holds its numbers, with contiguous rows, as kernels read `out` and `grad_out`.

    The gradient of `out.sum()` has strides of 0, and a hook on saved tensors may change strides.
    """
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def validate(problem: Problem) -> None:
    """Check that a problem's tensors fit each other. Takes a few microseconds.

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: the tensors do not fit each other.
    """
    query, key, value = problem.query, problem.key, problem.value
    masks = problem.attention.tensors()
    if not are_plain(query, key, value, *masks.values()):
        refuse_unreadable(query=query, key=key, value=value, **masks)
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
    if problem.attention.rule is not None:
        raise OptionError(
            "a kernel does not support a rule. Evaluate it with masks.lower, or run it in blocks of queries."
        )
    validate_attention(problem.attention, problem.shape, query.device)


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
            f"query, key and value must have the same B, and key and value the same H and S "
            f"({shape_text('query', query.shape, 'B,H,L,D')}; {shape_text('key', key.shape, 'B,H,S,D')}; "
            f"{shape_text('value', value.shape, 'B,H,S,D')})."
        )
    raise ShapeError(
        f"key has {key.shape[1]} heads, which does not divide query's {query.shape[1]} "
        f"({shape_text('key', key.shape, 'B,H,S,D')}). Each key head serves the same number of query heads."
    )


def _check_device(problem: Problem) -> None:
    device = problem.query.device
    for name, tensor in (("key", problem.key), ("value", problem.value)):
        if tensor.device != device:
            raise DeviceError(
                f"{name} is on {tensor.device}, query is on {device}. Move them to one device with .to()."
            )
