"""Call: one call of an attention function, its arguments and its output; checked before it is recorded."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import is_fake
from torch.multiprocessing.reductions import StorageWeakRef

from clearhead.capture.generation.cached_keys import Keys
from clearhead.capture.kept_copies import keep
from clearhead.capture.mask_tables import Sizes, block_mask_table
from clearhead.capture.steps import Step
from clearhead.errors import CaptureError
from clearhead.kernels import Problem, attend, run
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.inputs import RowValues
from clearhead.spec import EVERYWHERE, Attention, divide_heads

# Largest difference between a recomputed output row and the model's, as a share of the largest value.
# Eager attention in transformers takes the softmax in float32 also in a float64 model, hence 1e-6 for float64.
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}

NO_NUMBERS = "it ran on tensors that hold no numbers to look at: on the meta device, or in torch.export or torch.vmap"
NO_TOKENS = "it ran on a batch of 0 texts, or on texts or keys of length 0"


@dataclass(frozen=True, slots=True)
class Call:
    """One computed attention.

    Attributes:
        module: the module that computed it.
        query: (B, H, L, D).
        key: (B, H_kv, S, D).
        attention: scale, band, bias, soft cap, sinks and slopes; its bias may mask, with -inf or a large negative one.
        mask: the model's own mask, in addition: boolean (True = may attend) or float (added), broadcastable to
            (B, H, L, S), or (B, S); a BlockMask of flex attention; or None.
        value: (B, H_kv, S, D_v); None if it was not seen.
        out: (B, L, H, D_v), the output of the model's own attention; None if the call was checked in another way.
        dropout: whether `out` was computed with dropout.
        rows: the queries whose output follows from `value`; None = all.
        row_values: the values of the other queries, if these are known.
    """

    module: nn.Module
    query: Tensor
    key: Tensor
    attention: Attention
    mask: Any = None
    value: Tensor | None = None
    out: Tensor | None = None
    dropout: bool = False
    rows: list[int] | None = None
    row_values: RowValues | None = None


def attention_of(query: Tensor, scale: float | None = None, **options: Any) -> Attention:
    """Return a model's attention. A `scale` of None means 1/sqrt(D); `options` are those of `Attention.of`."""
    return Attention.of(query.shape[-1] ** -0.5 if scale is None else scale, **options)


@dataclass(slots=True)
class Masks:
    """Splits a model's masks into allow and bias, with a cache, because all layers of a model share one mask."""

    _known: dict[tuple[Any, ...], tuple[StorageWeakRef, Tensor | None, Tensor | None]] = field(default_factory=dict)
    _blocks: dict[tuple[int, Sizes], tuple[Any, bool, Tensor | None]] = field(default_factory=dict)

    def dense_block_mask(self, mask: Any, sizes: Sizes, device: torch.device) -> tuple[bool, Tensor | None]:
        """(is_causal, mask) of a BlockMask of flex attention over (B, H, L, S)."""
        seen = self._blocks.get((id(mask), sizes))
        if seen is None or seen[0]() is not mask:
            seen = self._blocks[id(mask), sizes] = (weakref.ref(mask), *block_mask_table(mask, sizes, device))
        return seen[1:]

    def split(self, mask: Any) -> tuple[Tensor | None, Tensor | None]:
        """(allow, bias) of a mask. A float mask blocks with -inf or with the least number of its dtype: both are taken
        as "may not attend", so that a row of nothing else is zero, as everywhere in Clearhead."""
        if mask is None:
            return None, None
        if not isinstance(mask, Tensor):
            raise CaptureError(f"its mask is a {type(mask).__name__}, not a tensor")
        if mask.dim() == 2:  # (B, S): which keys are padding
            mask = mask[:, None, None, :]
        # A model may write into its mask later, as caches do. Its version then differs, where torch counts versions.
        memory, version = mask.untyped_storage(), 0 if mask.is_inference() else mask._version
        place = (memory._cdata, mask.storage_offset(), mask.shape, mask.stride(), mask.dtype, version)
        if place not in self._known:  # the reference keeps the memory alive, so that its address is not reused
            self._known[place] = (StorageWeakRef(memory), *_split(mask.detach()))
        return self._known[place][1:]


def _split(mask: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Return (allow, bias) of a mask as copies; expanded axes keep size 1."""
    for axis, step in enumerate(mask.stride()):
        mask = mask.narrow(axis, 0, 1) if step == 0 and mask.shape[axis] > 1 else mask
    if mask.dtype == torch.bool:
        return mask.clone(), None
    if not mask.is_floating_point():
        return mask != 0, None
    allow = mask > torch.finfo(mask.dtype).min / 2
    adds, blocks = bool(((mask != 0) & allow).any()), not bool(allow.all())
    bias = None if not adds else (mask.masked_fill(~allow, 0.0) if blocks else mask.clone())
    return allow if blocks else None, bias


def record_step(
    call: Call, masks: Masks, heads: list[int] | None = None, *, values: bool = False, check: bool = True
) -> Step:
    """Return the Step of a call, with copies of its tensors, checked against the call's output.

    Three rows of the output are recomputed from the matrix. If they differ from the model's, its attention has a term
    that Clearhead does not know, and the call is not recorded. Pass `check=False` only if a similar call was checked.

    Raises:
        CaptureError: the call cannot be described as an attention matrix; the message says why.
    """
    if not all(holds_numbers(tensor) for tensor in (call.query, call.key, call.value) if tensor is not None):
        raise CaptureError(NO_NUMBERS)
    if not call.query.numel() or not call.key.numel():
        raise CaptureError(NO_TOKENS)
    call = _with_dense_mask(call, masks)
    if call.query.dim() != 4 or call.key.dim() != 4:
        raise CaptureError(f"its query has shape {tuple(call.query.shape)}, not (B, H, L, D)")
    call = _one_batch(_autocast(call))
    query, key, attention = call.query, call.key, _attention(call, masks)
    if check:
        check_rows(call, attention)
    value = call.value if values else None
    if heads is not None:
        which = torch.tensor(heads, device=query.device)
        value = None if value is None else value[:, which // divide_heads(query.shape[1], value.shape[1])]
        key = key[:, which // divide_heads(query.shape[1], key.shape[1])]
        query, attention = query[:, which], attention.heads(which)
    query, key = keep(query), keep(key)
    value = None if value is None else keep(value)
    own = call.row_values if values else None
    if own is not None:
        kept = own.value if heads is None else own.value[:, which]
        own = RowValues(own.rows.clone(), kept.detach().clone())
    make = partial(_matrix, query, attention, value, own)
    keys = Keys(key, _attended_keys(attention, query.shape[2], key))
    return Step(make, keys, key.shape[2], query.shape[2], attention, query if value is None else None)


def _attention(call: Call, masks: Masks) -> Attention:
    """Return a call's attention with copied tensors, and with everything its masks and biases block in `allow`."""
    tensors = call.attention.tensors()
    if not tensors and call.mask is None:
        return call.attention  # saves 0.1 ms per layer
    allow, bias = masks.split(call.mask)
    allow = None if allow is None else allow[..., : call.key.shape[2]]
    blocked, added = masks.split(call.attention.bias)
    own = {name: tensor.detach().clone() for name, tensor in tensors.items() if name not in ("allow", "bias")}
    attention = call.attention.change(allow=None, bias=None, **own)
    for part in (Attention(allow=allow, bias=bias), Attention(allow=blocked, bias=added)):
        attention = attention.under(part)
    return attention.with_four_axes()


def _matrix(
    query: Tensor, attention: Attention, value: Tensor | None, own: RowValues | None, key: Tensor
) -> AttentionMatrix:
    matrix = AttentionMatrix.of(query, key, attention, value=value)
    matrix._row_values = own
    return matrix


def holds_numbers(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be read: it is not on the meta device, from a tracer, or inside torch.vmap.

    >>> holds_numbers(torch.ones(2)), holds_numbers(torch.ones(2, device="meta"))
    (True, False)
    """
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        if torch._C._functorch.is_batchedtensor(tensor):
            return False
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return not (tensor.is_meta or is_fake(tensor))


def _autocast(call: Call) -> Call:
    """Return the call with query, key and value in the dtype that torch.autocast uses for products; float64 stays."""
    device = call.query.device.type
    if not torch.is_autocast_enabled(device):
        return call
    dtype = torch.get_autocast_dtype(device)

    def cast(tensor: Tensor) -> Tensor:
        return tensor if tensor.dtype == torch.float64 else tensor.to(dtype)

    value = None if call.value is None else cast(call.value)
    return replace(call, query=cast(call.query), key=cast(call.key), value=value)


def _one_batch(call: Call) -> Call:
    """Return the call with query, key and value expanded to one batch size."""
    parts = {name: getattr(call, name) for name in ("query", "key", "value") if getattr(call, name) is not None}
    batch = max(len(part) for part in parts.values())
    single = {name: part.expand(batch, *part.shape[1:]) for name, part in parts.items() if len(part) == 1 < batch}
    return replace(call, **single) if single else call


def _with_dense_mask(call: Call, masks: Masks) -> Call:
    """Return the call with a tensor, or a causal band, instead of flex attention's BlockMask."""
    if not hasattr(call.mask, "mask_mod"):
        return call
    sizes = (*call.query.shape[:3], call.key.shape[2])
    is_causal, mask = masks.dense_block_mask(call.mask, sizes, call.query.device)
    return replace(call, attention=call.attention.under(Attention.of(is_causal=is_causal)), mask=mask)


def _attended_keys(attention: Attention, length: int, key: Tensor) -> Tensor | None:
    """(B or 1, S): the keys that some query may attend to; None = all."""
    attended, keys = None, key.shape[2]
    if attention.allow is not None:
        attended = attention.allow.any(1).any(-2).expand(-1, keys)
    low, high = attention.reach
    if (low is None or low <= 0) and (high is None or length + high >= keys):
        return attended
    place = torch.arange(keys, device=key.device)
    reached = torch.ones_like(place, dtype=torch.bool) if low is None else place >= low
    reached = (reached if high is None else reached & (place < length + high))[None]
    if not bool(reached.all()):
        attended = reached if attended is None else attended & reached
    return attended


def check_rows(call: Call, attention: Attention) -> None:
    """Compare three rows of the model's own output with those recomputed from the matrix.

    Raises:
        CaptureError: they differ.
    """
    if call.dropout or call.out is None or call.value is None:
        return
    query = call.query.detach()
    batch, heads, length, _ = query.shape
    expected = (batch, length, heads, call.value.shape[-1])
    if call.out.numel() != torch.Size(expected).numel():
        raise CaptureError(f"its output has shape {tuple(call.out.shape)}, expected {expected}")
    given = call.out.detach().reshape(expected)
    if length > 1:
        rows = _three_rows(range(length) if call.rows is None else call.rows)
        if not rows:
            return
        if isinstance(rows, range):  # a view takes a tenth of the time of a copy
            query, given = query[:, :, rows.start : rows.stop : rows.step], given[:, rows.start : rows.stop : rows.step]
        else:
            query, given = query[:, :, rows], given[:, rows]
        if attention.tensors() or attention.band != EVERYWHERE:
            attention = attention.select_rows(torch.tensor(rows, device=query.device), call.key.shape[2])
    with torch.no_grad():
        key, value = (
            tensor.detach() if tensor.dtype is query.dtype else tensor.detach().to(query.dtype)
            for tensor in (call.key, call.value)
        )
        ours = _output(query, key, value, attention)
        off = (ours - given.transpose(1, 2)).abs()
        if attention.allow is not None:  # a row that may attend nothing is zero here and arbitrary in the model
            off = off.masked_fill(~attention.allow.any(-1, keepdim=True), 0.0)
        worst, tolerance = float(off.amax()), TOLERANCE.get(query.dtype, 1e-3)
        if worst <= tolerance * float(ours.abs().amax()):  # no output is larger than the largest value
            return
        worst /= max(float(call.value.detach().abs().amax()), 1e-30)
    if bool(given.isnan().any()):
        raise CaptureError("its own output has NaN in it, so its weights cannot be checked. Find where the NaN begins")
    if not worst <= tolerance:
        raise CaptureError(
            f"softmax(QKᵀ·scale + mask)V differs from the module's own output by {worst:.1e} of the largest value: "
            "its attention holds a term Clearhead does not know"
        )


def _three_rows(usable: Sequence[int]) -> Sequence[int]:
    """Return three of some rows: the last one, one in the middle and one at the beginning."""
    if isinstance(usable, range) and len(usable) > 2:
        step = (len(usable) - 1) // 2
        return usable[len(usable) - 1 - 2 * step :: step]
    return sorted({usable[0], usable[len(usable) // 2], usable[-1]}) if usable else []


def _output(query: Tensor, key: Tensor, value: Tensor, attention: Attention) -> Tensor:
    """Return the output of some rows. With only a scale and a mask, the fast path takes a third of the time."""
    has_more = attention.tensors().keys() - {"allow"} or attention.softcap is not None or attention.rule is not None
    if not has_more and attention.band == EVERYWHERE and not attention.dropout_p:
        grouped = query.shape[1] != key.shape[1]
        out = attend(query, key, value, False, attention.scale, attention.allow, grouped)
        if out is not None:
            return out
    return run(Problem(query, key, value, attention)).out
