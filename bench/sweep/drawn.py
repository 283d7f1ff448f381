"""Calls drawn at random that are slower than torch's: `chrt -f 10 python -m bench.sweep.drawn --seed 1 --seconds 90`.

The sweep's cases are regular; here batches, heads, widths, masks and layouts are mixed as nobody would list them: heads
or columns apart in memory, values of another width, grouped heads. The aim is the sweep's. A call that misses it is
measured three more times, and counts only if it misses it each time.
"""

import argparse
import random
import sys
import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import clearhead
from bench.harness.measure import Way, agree, interleaved
from bench.sweep.run import TOLERANCE, TRIES
from bench.sweep.table import is_slower

BATCHES = (1, 1, 1, 2, 3, 8, 64)
LENGTHS = (1, 1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 16, 17, 24, 31, 33, 48, 64, 67, 100, 128, 197, 256, 512)
WIDTHS = (1, 2, 3, 4, 7, 8, 12, 16, 20, 24, 32, 40, 48, 56, 64, 64, 64, 72, 80, 96, 128, 128, 160, 256)
MASKS = ("none", "none", "none", "causal", "bool", "bool of batches", "padding", "float", "float of heads")
DTYPES = ("float32", "float32", "bfloat16", "float16", "float64")
MOST_PRODUCTS, MOST_NUMBERS = 3e9, 3e7  # of one call, so that it takes well under a second


@dataclass(frozen=True)
class Drawn:
    """A call; `layout` is "whole", "heads apart" or "key columns apart"."""

    dtype: str
    batch: int
    kv_heads: int
    group: int
    length: int
    keys: int
    width: int
    value_width: int
    mask: str
    layout: str

    @property
    def is_small(self) -> bool:
        heads, columns = self.batch * self.kv_heads * self.group, self.width + self.value_width
        products = heads * self.length * self.keys * columns
        return products <= MOST_PRODUCTS and heads * (self.length + self.keys) * columns <= MOST_NUMBERS


def draw(chance: random.Random) -> Drawn:
    while True:
        length, width = chance.choice(LENGTHS), chance.choice(WIDTHS)
        case = Drawn(
            chance.choice(DTYPES), chance.choice(BATCHES),
            chance.choice((1, 2, 4, 8, 12)), chance.choice((1, 1, 1, 2, 4, 7)),
            length, chance.choice((length, length, length, 5, 64, 300, 1024, 1031, 4096)),
            width, chance.choice((width, width, width, 1, 8, 24, 64, 100)),
            chance.choice(MASKS), chance.choice(("whole", "heads apart", "heads apart", "key columns apart")),
        )  # fmt: skip
        if case.is_small:
            return case


def ways_of(case: Drawn, learns: bool) -> dict[str, Way]:
    """Ours and torch's way to compute the output or, if it learns, the three gradients."""
    dtype, heads = getattr(torch, case.dtype), case.kv_heads * case.group

    def numbers(heads: int, rows: int, columns: int) -> Tensor:
        x = torch.randn(case.batch, heads, rows, columns).to(dtype)
        return x.transpose(1, 2).contiguous().transpose(1, 2) if case.layout == "heads apart" else x

    query, key = numbers(heads, case.length, case.width), numbers(case.kv_heads, case.keys, case.width)
    value = numbers(case.kv_heads, case.keys, case.value_width)
    if case.layout == "key columns apart":
        key = key.mT.contiguous().mT
    options: dict[str, Any] = {
        "attn_mask": _mask(case, dtype), "is_causal": case.mask == "causal", "enable_gqa": case.group > 1,
    }  # fmt: skip
    functions = {"ours": clearhead.attention, "torch": F.scaled_dot_product_attention}
    if not learns:
        return {name: lambda f=f: f(query, key, value, **options) for name, f in functions.items()}
    leaves = [x.requires_grad_() for x in (query, key, value)]
    upstream = torch.randn(case.batch, heads, case.length, case.value_width).to(dtype)
    return {
        name: lambda f=f: torch.autograd.grad(f(*leaves, **options), leaves, upstream) for name, f in functions.items()
    }


def _mask(case: Drawn, dtype: torch.dtype) -> Tensor | None:
    match case.mask:
        case "bool" | "bool of batches":
            shape = (case.length, case.keys) if case.mask == "bool" else (case.batch, 1, case.length, case.keys)
            mask = torch.rand(shape) < 0.7
            mask[..., 0] = True  # torch gives NaN for a row that may attend nothing
            return mask
        case "padding":
            return (torch.arange(case.keys) < max(1, case.keys - 3)).expand(case.batch, 1, 1, case.keys)
        case "float" | "float of heads":
            heads = case.kv_heads * case.group
            return torch.randn(
                (case.length, case.keys) if case.mask == "float" else (1, heads, case.length, case.keys)
            ).to(dtype)
    return None


def measured(ways: dict[str, Way]) -> tuple[float, float]:
    """Ours and torch's microseconds, measured again while ours misses the aim."""
    for tries in range(TRIES + 1):
        taken = interleaved(ways, 0.1 if tries else 0.04)
        ours, torchs = taken["ours"].best * 1e6, taken["torch"].best * 1e6
        if not is_slower(ours, torchs):
            break
    return ours, torchs


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep.drawn", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="which cases are drawn")
    parser.add_argument("--seconds", type=float, default=60, help="for about how long")
    parser.add_argument("--learns", action="store_true", help="measure the gradients too")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    chance, ratios, slower = random.Random(options.seed), [], 0  # noqa: S311
    end = time.monotonic() + options.seconds
    with torch.set_grad_enabled(options.learns):
        while time.monotonic() < end:
            case = draw(chance)
            ways = ways_of(case, options.learns)
            if not options.learns and not agree(ways["ours"](), ways["torch"]()) < TOLERANCE[case.dtype]:
                raise SystemExit(f"drawn: ours and torch's output differ for {case}.")
            ours, torchs = measured(ways)
            ratios.append(torchs / ours)
            if is_slower(ours, torchs):
                slower += 1
                print(f"{torchs:.0f} µs / {ours:.0f} µs = {torchs / ours:.2f}  {case}", flush=True)
    print(f"{slower} of {len(ratios)} calls are slower; the median ratio is {median(ratios):.2f}.")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
