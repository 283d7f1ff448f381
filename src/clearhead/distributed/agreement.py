"""Check that every rank makes the same call: each reports its own, and an error names the first difference."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar
from zlib import crc32

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed import placement
from clearhead.distributed.call import HEADS, RING
from clearhead.distributed.exchange import Ranks
from clearhead.errors import DtypeError, OptionError, RanksError
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.layout import Layout
from clearhead.kernels.calls.prepare import prepare
from clearhead.kernels.plan import choose
from clearhead.kernels.registry import KERNELS
from clearhead.masks import Bias, Mask
from clearhead.masks.lower import split_alibi, split_reach
from clearhead.spec import Attention

ALGORITHMS = (None, RING, HEADS)
NO_MASK, BY_KEYS, BY_ROWS, RULE = range(4)
_SIZES = 6  # how many integers of a statistic's arguments ranks compare


class Report(NamedTuple):
    """A rank's call as integers, which one collective gathers.

    Attributes:
        ok: 1, or 0 if the rank refused its own call.
        length, keys: L_r and S_r, how many positions it holds.
        batch, heads, kv_heads, width, value_width: B, H, H_kv, D and E.
        mask, mask_checksum: the kind of its mask, and a checksum of the repr of one of clearhead.masks.
        learns: 1 if a gradient is needed.
        dropout_p, scale, softcap: the bits of the floats.
        placement, algorithm, kernel: indices of the known ones.
        seed: the seed of the dropout pattern; rank 0's is used.
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
    learns: int = 0
    dropout_p: int = 0
    scale: int = 0
    softcap: int = 0
    sinks: int = 0
    placement: int = 0
    algorithm: int = 0
    kernel: int = 0
    seed: int = 0


# Fields that may differ between ranks; the rest must be equal. An error shows sizes by their letters.
_OWN = {"ok", "length", "keys", "seed"}
_SIZED = {"batch": "B", "heads": "H", "kv_heads": "H_kv", "width": "D", "value_width": "E"}
_WORDS = {
    **_SIZED,
    "mask": "the kind of their mask",
    "mask_checksum": "their mask",
    "learns": "whether gradients are needed",
}


@dataclass(frozen=True, slots=True)
class Given:
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


def agree(ranks: Ranks, tensors: dict[str, Any], options: dict[str, Any]) -> Given:
    """Return this rank's call, after checking that every rank made the same one.

    A rank whose own call is wrong tells the others before it raises, so that none waits.

    Raises:
        RanksError: another rank refused its call, or made a different one.
    """
    given = None
    try:
        given = _describe(tensors, options)
    finally:
        numbers = ranks.gather_numbers(list(Report() if given is None else _report(given)), _device(tensors["query"]))
    reports = tuple(Report(*each) for each in numbers)
    _raise_where_refused([report.ok for report in reports])
    _compare(reports)
    return replace(given, reports=reports)


_Made = TypeVar("_Made")


def together(ranks: Ranks, make: Callable[[], _Made], query: Tensor) -> _Made:
    """Return the result of `make` on this rank, after checking that it succeeded on every rank.

    Raises:
        RanksError: it failed on another rank.
    """
    ok = False
    try:
        made = make()
        ok = True
    finally:
        numbers = ranks.gather_numbers([int(ok)], query.device)
    _raise_where_refused([accepted for (accepted,) in numbers])
    return made


def same_question(ranks: Ranks, question: str, check: Callable[[], Sequence[int]], device: torch.device) -> None:
    """Check that every rank computes the same statistic with the same sizes, before anything is sent.

    Args:
        check: raises if this rank's arguments are wrong; returns at most `_SIZES` integers that must be equal.
    Raises:
        RanksError: another rank refused its arguments, or computes something else.
    """
    own = [0, crc32(question.encode())] + [0] * _SIZES
    try:
        sizes = list(check())
        own[0], own[2 : 2 + len(sizes)] = 1, sizes
    finally:
        reports = ranks.gather_numbers(own, device)
    _raise_where_refused([report[0] for report in reports])
    for rank, report in enumerate(reports):
        if report != own:
            same = f"the same with sizes {report[2:]} instead of {own[2:]}"
            other = same if report[1] == own[1] else "something else"
            raise RanksError(
                f"this rank computes {question}, but rank {rank} computes {other}. Call the same on every rank."
            )


def refuse(mesh: Any, query: Any) -> None:
    """Tell the other ranks that this one refuses its call because of the placement of its DTensors.

    Does nothing if the arguments do not determine which ranks share the sequence.
    """
    mesh = getattr(query, "device_mesh", None) if mesh is None else mesh
    if getattr(mesh, "ndim", 1) == 1:
        ranks = Ranks.of(mesh)
        ranks.gather_numbers(list(Report()), _device(query))


def _device(query: Any) -> torch.device:
    return query.device if isinstance(query, Tensor) else torch.device("cpu")


def _raise_where_refused(accepted: list[int]) -> None:
    if not all(accepted):
        raise RanksError(
            f"rank {accepted.index(0)} refused its own call, so this rank does not compute. See that rank's error."
        )


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


def _describe(tensors: dict[str, Any], options: dict[str, Any]) -> Given:
    """Validate this rank's call and describe it."""
    query, key, value, sinks = (tensors[name] for name in ("query", "key", "value", "sinks"))
    attn_mask = options["attn_mask"]
    placement.check(options["placement"])
    if options["algorithm"] not in ALGORITHMS:
        raise OptionError(f"algorithm={options['algorithm']!r} is unknown. Use 'ring', 'heads', or None to choose.")
    checks.tensors(query, key, value)
    refuse_unreadable(query=query, key=key, value=value, sinks=sinks)
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
    attention, rule, added, kind = problem.attention, None, None, NO_MASK
    if isinstance(attn_mask, Mask):
        reach, rule = split_reach(attn_mask.allow)
        slopes, offset, added = split_alibi(attn_mask.bias)
        slopes = slopes if slopes is None else slopes.to(query.device)
        attention = attention.under(Attention.of(reach=reach, alibi=slopes, first_query=offset))
        kind = RULE
    elif attn_mask is not None:
        if not isinstance(attn_mask, Tensor):
            raise DtypeError(
                f"attn_mask is a {type(attn_mask).__name__}, expected a torch.Tensor or one of clearhead.masks. "
                "Make one with torch.tensor()."
            )
        by_rows = attn_mask.dim() > 1 and attn_mask.shape[-2] > 1
        kind = BY_ROWS if by_rows else BY_KEYS
    return Given(layout, attention, problem.attention, rule, added, attn_mask, kind, options)


def _report(given: Given) -> Report:
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
        mask_checksum=_checksum(given.attn_mask) if given.mask == RULE else 0,
        learns=int(learns),
        dropout_p=_bits(attention.dropout_p),
        scale=_bits(attention.scale),
        softcap=_bits(attention.softcap or 0.0),
        sinks=int(attention.sinks is not None),
        placement=placement.PLACEMENTS.index(given.options["placement"]),
        algorithm=ALGORITHMS.index(given.options["algorithm"]),
        kernel=(None, *KERNELS).index(given.options["kernel"]),
        seed=seed,
    )


def _checksum(mask: Mask) -> int:
    """Return a checksum of a mask's repr without memory addresses, which a user's own mask class may have."""
    return crc32(re.sub(r" at 0x[0-9a-fA-F]+", "", repr(mask)).encode())


def _bits(number: float) -> int:
    """Return the bits of a float as an integer."""
    return int(struct.unpack("<q", struct.pack("<d", float(number)))[0])
