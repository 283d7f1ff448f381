"""Find where `clearhead.attention` is slower than torch, over many shapes, masks and dtypes: `python -m bench.sweep`.

Where torch takes 50 µs or more, ours should not take longer; where it takes less, ours should take at most 10 µs more.
A case that fails is measured three more times, for longer, and counts only if it fails each time. The results are saved
in a JSON file every few seconds, and the next run continues there.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# Keeps threads on their cores. OpenMP reads this when torch loads it.
os.environ.setdefault("OMP_PROC_BIND", "true")

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from torch import Tensor

import clearhead
from bench.harness.measure import Way, agree, interleaved, undisturbed
from bench.harness.report import machine
from bench.sweep.table import Case, CaseResult, table

LENGTHS = (1, 2, 3, 4, 5, 7, 8, 13, 16, 31, 64, 67, 128, 131, 256, 509, 512, 1024, 1031, 2048, 4096)
HEADS = ((1, 1), (1, 8), (4, 12))
WIDTHS = (32, 64, 80, 128)
MASKS = (
    "none", "causal", "padding", "dense bool", "dense float", "one query", "5 queries", "13 queries", "grouped",
    "one query, grouped",
)  # fmt: skip
QUERIES = {"one query": 1, "5 queries": 5, "13 queries": 13, "one query, grouped": 1}
GROUP = 4  # query heads per key head, where they are grouped
LEARNT = ("none", "causal", "dense bool", "one query", "5 queries", "grouped")
LARGEST = 1 << 25  # limit on B·H·L·S for other heads and widths and for gradients, so that a case takes seconds
TOLERANCE = {"float64": 1e-12, "float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2}
TRIES = 3


def cases(quick: bool) -> Iterator[Case]:
    """All lengths, masks and dtypes at (1, 8) heads of width 64; others of fewer kinds, widths in the main dtypes."""
    lengths = LENGTHS[::4] if quick else LENGTHS
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        for length in lengths:
            for mask in MASKS:
                yield Case(1, 8, length, 64, mask, dtype)
            for mask in LEARNT:
                if 8 * length * length < LARGEST:
                    yield Case(1, 8, length, 64, mask, dtype, learns=True)
            for batch, heads in HEADS:
                if (batch, heads) != (1, 8) and batch * heads * length * length < LARGEST:
                    for mask in ("none", "one query", "5 queries"):
                        yield Case(batch, heads, length, 64, mask, dtype, learns=True)
            if dtype not in ("float32", "bfloat16"):
                continue
            for batch, heads in HEADS:
                for width in WIDTHS:
                    if (batch, heads, width) != (1, 8, 64) and batch * heads * length * length < LARGEST:
                        for mask in ("none", "causal", "one query"):
                            yield Case(batch, heads, length, width, mask, dtype)


def ways_of(case: Case) -> dict[str, Way]:
    """Ours and torch's way to compute a case: the output, or the three gradients if it learns."""
    make = torch.Generator().manual_seed(0)
    dtype = getattr(torch, case.dtype)
    grouped = "grouped" in case.mask
    heads = case.heads // GROUP if grouped else case.heads
    query, key, value = (
        torch.randn(case.batch, h, n, case.width, generator=make).to(dtype)
        for h, n in ((case.heads, QUERIES.get(case.mask, case.length)), (heads, case.length), (heads, case.length))
    )
    options: dict[str, Any] = {
        "is_causal": case.mask == "causal", "attn_mask": _mask(case, dtype, make), "enable_gqa": grouped,
    }  # fmt: skip
    if not case.learns:
        return {
            "ours": lambda: clearhead.attention(query, key, value, **options),
            "torch": lambda: F.scaled_dot_product_attention(query, key, value, **options),
        }
    leaves = [x.requires_grad_() for x in (query, key, value)]
    upstream = torch.randn(query.shape, generator=make).to(dtype)

    def learning(attend: Any) -> Way:
        return lambda: torch.autograd.grad(attend(*leaves, **options), leaves, upstream)

    return {"ours": learning(clearhead.attention), "torch": learning(F.scaled_dot_product_attention)}


def _mask(case: Case, dtype: torch.dtype, make: torch.Generator) -> Tensor | None:
    length = case.length
    if case.mask == "padding":
        return (torch.arange(length) < max(1, length * 3 // 4))[None, None, None]
    if case.mask == "dense bool":
        return (torch.rand(length, length, generator=make) < 0.5) | torch.eye(length, dtype=torch.bool)
    if case.mask == "dense float":
        return torch.randn(length, length, generator=make).to(dtype)
    return None


def measured(case: Case, real_time: bool) -> CaseResult:
    """Check, outside the timed region, that both give the same result, and time them."""
    ways = ways_of(case)
    start = time.perf_counter()
    results = {name: way() for name, way in ways.items()}
    once = time.perf_counter() - start
    rounds = 7 if once < 0.3 else 3 if once < 1 else 1
    difference = agree(*(_joined(results[name]) for name in ("ours", "torch")))
    if not difference < TOLERANCE[case.dtype]:
        raise SystemExit(f"sweep: {case} differs from torch by {difference:.1e} of the largest entry.")
    del results
    for tries in range(TRIES + 1):
        start = time.perf_counter()
        with undisturbed(real_time):
            taken = interleaved(ways, 0.2 if tries else 0.03, rounds)
        found = CaseResult(case, taken["ours"].best * 1e6, taken["torch"].best * 1e6, tries)
        if real_time:
            time.sleep(min(2.0, time.perf_counter() - start))  # other work has waited, so it now gets as much time
        if not found.is_slower:
            break
    return found


def _joined(result: Any) -> Tensor:
    """An output or three gradients as one tensor, because with a single key the query's gradient is only rounding."""
    return torch.cat([part.detach().flatten() for part in (result if isinstance(result, tuple) else (result,))])


@dataclass
class Store:
    """The results so far, in a file."""

    path: Path
    found: dict[Case, CaseResult] = field(default_factory=dict)

    def load(self) -> None:
        if self.path.exists():
            for one in json.loads(self.path.read_text())["found"]:
                case = Case(**one.pop("case"))
                self.found[case] = CaseResult(case, **one)

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        found = [asdict(one) for one in self.found.values()]
        self.path.write_text(json.dumps({"machine": machine(0), "found": found}, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the lengths")
    parser.add_argument("--only", default="", help="only cases whose name contains this; measures them again")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after about this long; the next run continues")
    parser.add_argument("--again", action="store_true", help="discard earlier results")
    parser.add_argument("--losing", action="store_true", help="only measure again what was slower before")
    parser.add_argument("--real-time", action="store_true", help="measure at real-time priority, case by case (root)")
    parser.add_argument("--out", type=Path, default=Path("bench/results/sweep.json"))
    options = parser.parse_args()
    store = Store(options.out)
    if not options.again:
        store.load()
    everything = list(cases(options.quick))
    plan = [case for case in everything if options.only in str(case)]
    if options.losing:
        chosen = [case for case in plan if case in store.found and store.found[case].is_slower]
    else:
        chosen = [case for case in plan if options.only or case not in store.found]
    began = saved = time.monotonic()
    try:
        for case in track(chosen, description="measuring", console=Console(stderr=True)):
            store.found[case] = measured(case, options.real_time)
            if time.monotonic() > saved + 5:
                store.save()
                saved = time.monotonic()
            if time.monotonic() > began + options.seconds:
                break
    except KeyboardInterrupt:
        print("Stopped.")
    store.save()
    here = [store.found[case] for case in everything if case in store.found]
    text = table(here, len(everything), machine(0))
    options.out.with_suffix(".md").write_text(text)
    print(text)
    return 0 if len(here) == len(everything) and not any(one.is_slower for one in here) else 1
