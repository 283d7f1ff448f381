"""What the sweep found, and its table: how many calls are slower than torch's, of which kind, and which the most."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

LONG = 50.0  # µs: from here on ours must not take longer; below, at most MORE longer
MORE = 10.0
DOUBT = 0.95  # two timings of the same thing differ by up to this


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        length: of queries and keys; "one query" and "13 queries" have that many queries instead.
        mask: its kind.
        dtype: its name.
        learns: whether the gradients of query, key and value are asked for too.
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
class Found:
    """Microseconds a call, the best of all rounds; `tries`: how often it was measured again because ours was slower."""

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
        """Whether the aim is missed by more than the clock's doubt."""
        return self.ratio < DOUBT if self.is_long else self.ours > self.torch + MORE


def table(found: list[Found], planned: int, about: Mapping[str, Any]) -> str:
    """Markdown: the count of all, a row for each kind, and every case that is slower."""
    long, short = [one for one in found if one.is_long], [one for one in found if not one.is_long]
    slower = sorted((one for one in found if one.is_slower), key=lambda one: one.ratio)
    lines = [
        "# Sweep: `clearhead.attention` beside `F.scaled_dot_product_attention`",
        "",
        ", ".join(f"{name} {value}" for name, value in about.items() if value) + ".",
        "",
        f"{len(found):,} of {planned:,} cases. Best of all rounds, the call's overhead included; ratio: torch's time "
        "over ours.",
        "",
        f"- torch takes {LONG:.0f} µs or more: {len(long):,} cases, {_count(long, 1.0)} below 1×, "
        f"{_count(long, DOUBT)} below {DOUBT}× (two timings of one thing differ by that much); median {_median(long)}.",
        f"- torch takes less: {len(short):,} cases, {sum(one.is_slower for one in short)} more than {MORE:.0f} µs "
        "over it.",
        "",
        f"| kind | from {LONG:.0f} µs | below 1× | below {DOUBT}× | median | lowest | at (B, H, L, D) "
        f"| under {LONG:.0f} µs | over by {MORE:.0f} µs | most over, µs |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    kinds = sorted(found, key=lambda one: one.case.kind)
    lines += [_row(kind, list(group)) for kind, group in groupby(kinds, key=lambda one: one.case.kind)]
    if slower:
        lines += ["", "| slower | ours, µs | torch, µs | ratio |", "|---|---|---|---|"]
        lines += [f"| {one.case} | {one.ours:.1f} | {one.torch:.1f} | {one.ratio:.2f} |" for one in slower]
    return "\n".join(lines) + "\n"


def _row(kind: str, group: list[Found]) -> str:
    long, short = [one for one in group if one.is_long], [one for one in group if not one.is_long]
    cells = [kind, f"{len(long)}", f"{_count(long, 1.0)}", f"{_count(long, DOUBT)}", _median(long)]
    if long:
        worst = min(long, key=lambda one: one.ratio)
        case = worst.case
        cells += [f"{worst.ratio:.2f}", f"({case.batch}, {case.heads}, {case.length}, {case.width})"]
    else:
        cells += ["–", "–"]
    cells += [f"{len(short)}", f"{sum(one.is_slower for one in short)}"]
    cells += [f"{max(one.ours - one.torch for one in short):.1f}" if short else "–"]
    return "| " + " | ".join(cells) + " |"


def _count(found: list[Found], below: float) -> int:
    return sum(one.ratio < below for one in found)


def _median(found: list[Found]) -> str:
    ratios = sorted(one.ratio for one in found)
    return f"{ratios[len(ratios) // 2]:.2f}×" if ratios else "–"
