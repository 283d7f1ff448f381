"""`python -m bench.sweep`: is `clearhead.attention` slower than torch anywhere? Many shapes, masks and dtypes, briefly.

Counts as slower: less than 0.95 of torch's speed (the clock is no better here) where torch takes 50 µs or more; more
than 10 µs over torch where it takes less. Each suspect is measured again, longer, before it is named.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track

import clearhead
from bench.measure import interleaved

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 67, 128, 131, 256, 509, 512, 1024, 1031, 2048, 4096)
HEADS = ((1, 1), (1, 8), (4, 12))
WIDTHS = (32, 64, 80, 128)
MASKS = ("none", "causal", "padding", "dense bool", "dense float", "one query")
DTYPES = (torch.float32, torch.bfloat16)
LARGEST = 1 << 28  # B·H·L·S: keeps a case under a second


@dataclass(frozen=True)
class Case:
    """One call: B, H, L, D, the mask's kind and the dtype's name. "one query" has L keys and a single query."""

    batch: int
    heads: int
    length: int
    width: int
    mask: str
    dtype: str


@dataclass(frozen=True)
class Found:
    """Microseconds a call, the best of all rounds."""

    case: Case
    ours: float
    torch: float

    @property
    def is_slower(self) -> bool:
        return self.ours * 0.95 > self.torch if self.torch >= 50 else self.ours > self.torch + 10


def cases(quick: bool) -> Iterator[Case]:
    """Every length with every mask and dtype at (1, 8) heads of width 64; the other heads and widths with no mask."""
    lengths = LENGTHS[::4] if quick else LENGTHS
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        for length in lengths:
            for mask in MASKS:
                yield Case(1, 8, length, 64, mask, name)
            for batch, heads in HEADS:
                for width in WIDTHS:
                    if (batch, heads, width) != (1, 8, 64) and batch * heads * length * length < LARGEST // 8:
                        for mask in ("none", "causal"):
                            yield Case(batch, heads, length, width, mask, name)


def measure(case: Case, seconds: float) -> Found:
    make = torch.Generator().manual_seed(0)
    queries = 1 if case.mask == "one query" else case.length
    query, key, value = (
        torch.randn(case.batch, case.heads, n, case.width, generator=make).to(getattr(torch, case.dtype))
        for n in (queries, case.length, case.length)
    )
    options: dict[str, Any] = {"is_causal": case.mask == "causal", "attn_mask": _mask(case, query.dtype, make)}
    ways = {
        "ours": lambda: clearhead.attention(query, key, value, **options),
        "torch": lambda: F.scaled_dot_product_attention(query, key, value, **options),
    }
    taken = interleaved(ways, seconds)
    return Found(case, taken["ours"].best * 1e6, taken["torch"].best * 1e6)


def _mask(case: Case, dtype: torch.dtype, make: torch.Generator) -> torch.Tensor | None:
    length = case.length
    if case.mask == "padding":
        return (torch.arange(length) < max(1, length * 3 // 4))[None, None, None]
    if case.mask == "dense bool":
        return (torch.rand(length, length, generator=make) < 0.5) | torch.eye(length, dtype=torch.bool)
    if case.mask == "dense float":
        return torch.randn(length, length, generator=make).to(dtype)
    return None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the lengths")
    parser.add_argument("--only", default="", help="only cases whose text contains this")
    parser.add_argument("--out", type=Path, default=Path("bench/results/sweep.json"))
    options = parser.parse_args()
    chosen = [case for case in cases(options.quick) if options.only in str(case)]
    found, slower = [], []
    for case in track(chosen, description="measuring", console=Console(stderr=True)):
        here = measure(case, 0.03)
        if here.is_slower:
            here = measure(case, 0.3)
        found.append(here)
        if here.is_slower:
            slower.append(here)
    for one in slower:
        print(f"{one.case}: ours {one.ours:.1f} µs, torch {one.torch:.1f} µs")
    ratios = sorted(one.torch / one.ours for one in found)
    print(f"{len(found)} cases, {len(slower)} slower than torch; ratio from {ratios[0]:.2f} to {ratios[-1]:.1f}, "
          f"median {ratios[len(ratios) // 2]:.2f}")  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps([asdict(one) for one in found], indent=1))
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
