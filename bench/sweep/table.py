"""The sweep's results and their table: how many calls of each kind are slower than torch's, and by how much."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

LONG = 50.0  # µs of torch's: from here on ours must not take longer; below, at most MORE longer
MORE = 10.0
NOISE = 0.95  # two timings of the same call differ by up to this ratio


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        length: of queries and keys; "one query", "5 queries" and "13 queries" have that many queries.
        mask: its kind, as in `sweep.MASKS`.
        dtype: its name in torch.
        learns: whether the gradients of query, key and value are computed too.
    """

    batch: int
    heads: int
    length: int
    width: int
    mask: str
    dtype: str
    learns: bool = False

    def __str__(self) -> str:
        shape = (self.batch, self.heads, self.length, self.width)
        return f"{self.kind}, {shape}"

    @property
    def kind(self) -> str:
        return f"{self.dtype}, {self.mask}{', gradients too' if self.learns else ''}"


@dataclass(frozen=True)
class CaseResult:
    """The best microseconds per call; `tries`: how often it was measured again because ours was slower."""

    case: Case
    ours: float
    torch: float
    tries: int = 0

    @property
    def ratio(self) -> float:
        return self.torch / self.ours

    @property
    def is_long(self) -> bool:
        return self.torch >= LONG

    @property
    def is_slower(self) -> bool:
        """Whether the aim is missed by more than the noise of timing."""
        return is_slower(self.ours, self.torch)


def is_slower(ours: float, torchs: float) -> bool:
    """Return whether our microseconds miss the aim, beside torch's, by more than the noise of timing."""
    return torchs / ours < NOISE if torchs >= LONG else ours > torchs + MORE


def table(found: list[CaseResult], planned: int, about: Mapping[str, Any]) -> str:
    """Markdown: the totals, a row for each kind, and every slower case."""
    long, short = [one for one in found if one.is_long], [one for one in found if not one.is_long]
    slower = sorted((one for one in found if one.is_slower), key=lambda one: one.ratio)
    lines = [
        "# Sweep: `clearhead.attention` and `F.scaled_dot_product_attention`",
        "",
        ", ".join(f"{name} {value}" for name, value in about.items() if value) + ".",
        "",
        f"{len(found):,} of {planned:,} cases. Best of all rounds, including the overhead of the call; ratio: torch's "
        "time over ours.",
        "",
        f"- torch takes {LONG:.0f} µs or more: {len(long):,} cases, {_count(long, 1.0)} below 1×, "
        f"{_count(long, NOISE)} below {NOISE}× (two timings of one call differ by that much); median {_median(long)}.",
        f"- torch takes less: {len(short):,} cases, {sum(one.is_slower for one in short)} more than {MORE:.0f} µs "
        "over it.",
        "",
        f"| kind | from {LONG:.0f} µs | below 1× | below {NOISE}× | median | lowest | at (B, H, L, D) "
        f"| under {LONG:.0f} µs | over by {MORE:.0f} µs | most over, µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = sorted(found, key=lambda one: one.case.kind)
    lines += [_row(kind, list(group)) for kind, group in groupby(kinds, key=lambda one: one.case.kind)]
    if slower:
        lines += ["", "| slower | ours, µs | torch, µs | ratio |", "|---|---|---|---|"]
        lines += [f"| {one.case} | {one.ours:.1f} | {one.torch:.1f} | {one.ratio:.2f} |" for one in slower]
    return "\n".join(lines) + "\n"


def _row(kind: str, group: list[CaseResult]) -> str:
    long, short = [one for one in group if one.is_long], [one for one in group if not one.is_long]
    cells = [kind, f"{len(long)}", f"{_count(long, 1.0)}", f"{_count(long, NOISE)}", _median(long)]
    if long:
        worst = min(long, key=lambda one: one.ratio)
        case = worst.case
        cells += [f"{worst.ratio:.2f}", f"({case.batch}, {case.heads}, {case.length}, {case.width})"]
    else:
        cells += ["–", "–"]
    cells += [f"{len(short)}", f"{sum(one.is_slower for one in short)}"]
    cells += [f"{max(one.ours - one.torch for one in short):.1f}" if short else "–"]
    return "| " + " | ".join(cells) + " |"


def _count(found: list[CaseResult], below: float) -> int:
    return sum(one.ratio < below for one in found)


def _median(found: list[CaseResult]) -> str:
    ratios = sorted(one.ratio for one in found)
    return f"{ratios[len(ratios) // 2]:.2f}×" if ratios else "–"
