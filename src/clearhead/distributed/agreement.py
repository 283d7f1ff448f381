"""Check that every rank makes the same call: each reports its own, and an error names the first difference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed import placement
from clearhead.distributed.call import HEADS, RING
from clearhead.distributed.comparing import ATTENTION, device_of, raise_where_refused
from clearhead.distributed.exchange import Ranks, bits_of
from clearhead.errors import DeviceError, DtypeError, OptionError, RanksError
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.layout import Layout
from clearhead.kernels.calls.prepare import prepare
from clearhead.kernels.plan import choose
from clearhead.kernels.registry import KERNELS
from clearhead.masks import Bias, Mask, content
from clearhead.masks.lower import split_alibi, split_reach
from clearhead.spec import Attention

ALGORITHMS = (None, RING, HEADS)
NO_MASK, TENSOR, RULE = range(3)
_CALLS = count(1)


class Report(NamedTuple):
    """A rank's call as integers, which one collective gathers.

    Attributes:
        ok: 1, or 0 if the rank refused its own call.
        length, keys: L_r and S_r, how many positions it holds.
        batch, heads, kv_heads, width, value_width: B, H, H_kv, D and E.
        mask, mask_checksum: the kind of its mask, and a checksum of the content of one of clearhead.masks.
        by_rows: 1 if its mask is a tensor that has rows of its own.
        learns: 1 if a gradient is needed.
        dropout_p, scale, softcap: the bits of the floats.
        placement, algorithm, kernel: indices of the known ones.
        seed: the seed of the dropout pattern; rank 0's is used.
        number: how many calls this process has made; rank 0's names the call.
    """

    ok: int = 0
    length: int = 0
    keys: int = 0
    batch: int = 0
    heads: int = 0
    kv_heads: int = 0
    width: int = 0
    value_width: int = 0
    dtype: int = 0
    is_causal: int = 0
    mask: int = 0
    mask_checksum: int = 0
    by_rows: int = 0
    learns: int = 0
    dropout_p: int = 0
    scale: int = 0
    softcap: int = 0
    sinks: int = 0
    placement: int = 0
    algorithm: int = 0
    kernel: int = 0
    seed: int = 0
    number: int = 0


# Fields that may differ between ranks; the rest must be equal. An error shows sizes by their letters.
_OWN = {"ok", "length", "keys", "by_rows", "seed", "number"}
_SIZED = {"batch": "B", "heads": "H", "kv_heads": "H_kv", "width": "D", "value_width": "E"}
_WORDS = {
    **_SIZED,
    "mask": "the kind of their mask",
    "mask_checksum": "their mask",
    "learns": "whether gradients are needed",
}


@dataclass(frozen=True, slots=True)
class AgreedCall:
    """A call on which all ranks agree.

    Attributes:
        layout, attention: this rank's tensors, and the description of its attention.
        unmasked: the attention without a mask of clearhead.masks.
        rule, added: the parts of its mask that are evaluated in blocks.
        attn_mask, mask: the mask and its kind.
        options: the options by name.
        reports: the report of each rank.
    """

    layout: Layout
    attention: Attention
    unmasked: Attention
    rule: Mask | None
    added: Bias | None
    attn_mask: Any
    mask: int
    options: dict[str, Any]
    reports: tuple[Report, ...] = ()

    @property
    def lengths(self) -> list[int]:
        """How many queries each rank holds."""
        return [report.length for report in self.reports]

    @property
    def key_lengths(self) -> list[int]:
        """How many keys each rank holds."""
        return [report.keys for report in self.reports]


def agree(ranks: Ranks, tensors: dict[str, Any], options: dict[str, Any]) -> AgreedCall:
    """Return this rank's call, after checking that every rank made the same one.

    A rank whose own call is wrong tells the others before it raises, so that none waits.

    Raises:
        RanksError: another rank refused its call, or made a different one.
    """
    report = Report()
    try:
        given = _describe(tensors, options)
        report = _report(given)
    finally:
        numbers = ranks.gather_numbers(ATTENTION, list(report), device_of(tensors["query"]))
    reports = tuple(Report(*each) for each in numbers)
    raise_where_refused([report.ok for report in reports])
    _compare(reports)
    return replace(given, reports=reports)


def refuse(mesh: Any, query: Any, call: str = ATTENTION) -> None:
    """Tell the other ranks that this one refuses its call, before `agree` or `check_positions` would compare it.

    Does nothing if the arguments do not determine which ranks share the sequence.

    Args:
        call: the call that the other ranks make, ATTENTION or MODEL.
    """
    mesh = getattr(query, "device_mesh", None) if mesh is None else mesh
    if getattr(mesh, "ndim", 1) == 1:
        ranks = Ranks.of(mesh)
        ranks.gather_numbers(call, list(Report()), device_of(query))


def _compare(reports: tuple[Report, ...]) -> None:
    for field, name in enumerate(Report._fields):
        values = [report[field] for report in reports]
        if name in _OWN or len(set(values)) == 1:
            continue
        other = next(rank for rank, value in enumerate(values) if value != values[0])
        shown = f" (rank 0 has {values[0]}, rank {other} has {values[other]})" if name in _SIZED else ""
        raise RanksError(
            f"the calls of rank 0 and rank {other} differ in {_WORDS.get(name, name)}{shown}. "
            f"Make the same call on every rank, each with its own part of the sequence."
        )


def _describe(tensors: dict[str, Any], options: dict[str, Any]) -> AgreedCall:
    """Validate this rank's call and describe it."""
    query, key, value, sinks = (tensors[name] for name in ("query", "key", "value", "sinks"))
    attn_mask = options["attn_mask"]
    placement.check(options["placement"])
    if options["algorithm"] not in ALGORITHMS:
        raise OptionError(f"algorithm={options['algorithm']!r} is unknown. Use 'ring', 'heads', or None to choose.")
    checks.tensors(query, key, value)
    refuse_unreadable(query=query, key=key, value=value, sinks=sinks)
    _refuse_transforms(query)
    dropout_p, scale, softcap = (checks.number(options[name]) for name in ("dropout_p", "scale", "softcap"))
    checks.dropout(dropout_p)
    if dropout_p == 1:
        raise OptionError("dropout_p is 1, which drops every weight. Multiply the output by 0.")
    if attn_mask is not None and options["is_causal"]:
        raise OptionError(
            "attn_mask is given and is_causal is True; expected one of them. "
            "Write the causal part into the mask: attn_mask=clearhead.masks.causal() & your_mask."
        )
    layout, problem = prepare(
        query,
        key,
        value,
        None,
        options["is_causal"],
        scale,
        options["enable_gqa"],
        softcap,
        sinks,
        float(dropout_p),
    )
    if options["kernel"] is not None:
        choose(problem, options["kernel"])
    return _with_mask(AgreedCall(layout, problem.attention, problem.attention, None, None, attn_mask, NO_MASK, options))


def _with_mask(given: AgreedCall) -> AgreedCall:
    """Add the mask to the description of a call."""
    attn_mask = given.attn_mask
    if attn_mask is None:
        return given
    if not isinstance(attn_mask, Mask):
        if not isinstance(attn_mask, Tensor):
            raise DtypeError(
                f"attn_mask is a {type(attn_mask).__name__}, expected a torch.Tensor or one of clearhead.masks. "
                "Make one with torch.tensor()."
            )
        return replace(given, mask=TENSOR)
    reach, rule = split_reach(attn_mask.allow)
    slopes, offset, added = split_alibi(attn_mask.bias)
    if torch.is_grad_enabled() and (content.needs_gradient(rule) or content.needs_gradient(added)):
        raise OptionError(
            f"{attn_mask!r} has a tensor that requires a gradient, which distributed.attention computes only for "
            "the slopes of alibi and for biases given as a tensor. Pass a bias tensor, or call detach()."
        )
    slopes = slopes if slopes is None else slopes.to(given.layout.query.device)
    attention = given.attention.under(Attention.of(reach=reach, alibi=slopes, first_query=offset))
    return replace(given, attention=attention, rule=rule, added=added, mask=RULE)


def _report(given: AgreedCall) -> Report:
    layout, attention = given.layout, given.attention
    (batch, heads, length, width), (_, kv_heads, keys, _) = layout.query.shape, layout.key.shape
    tensors = (layout.query, layout.key, layout.value)
    learns = torch.is_grad_enabled() and (any(t.requires_grad for t in tensors) or bool(attention.learning()))
    learns = learns or (torch.is_grad_enabled() and getattr(given.attn_mask, "requires_grad", False))
    seed = int(torch.randint(2**62, (), device="cpu")) if attention.dropout_p else 0
    return Report(
        ok=1,
        length=length,
        keys=keys,
        batch=batch,
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        value_width=layout.value.shape[3],
        dtype=checks.DTYPES.index(layout.query.dtype),
        is_causal=int(attention.is_causal),
        mask=given.mask,
        mask_checksum=content.checksum(given.attn_mask) if given.mask == RULE else 0,
        by_rows=int(given.mask == TENSOR and _has_rows(given.attn_mask, length)),
        learns=int(learns),
        dropout_p=bits_of(attention.dropout_p),
        scale=bits_of(attention.scale),
        softcap=bits_of(attention.softcap or 0.0),
        sinks=int(attention.sinks is not None),
        placement=placement.PLACEMENTS.index(given.options["placement"]),
        algorithm=ALGORITHMS.index(given.options["algorithm"]),
        kernel=(None, *KERNELS).index(given.options["kernel"]),
        seed=seed,
        number=next(_CALLS),
    )


def _has_rows(mask: Tensor, length: int) -> bool:
    """Return whether a mask may have rows of this rank alone, of which there are `length`."""
    return mask.dim() > 1 and (mask.shape[-2] != 1 or length == 1)


def _refuse_transforms(query: Tensor) -> None:
    if query.is_meta:
        raise DeviceError("query is on the meta device, which holds no data to exchange. Move it to a real device.")
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise OptionError(
            "distributed.attention is called inside a transform of torch.func, such as vmap or grad, which cannot "
            "exchange tensors between ranks. Call it outside, and use backward() or torch.autograd.grad."
        )
