"""Run the kernels' contract on a CUDA device, then compare them with torch, in under four minutes.

python -m bench.kernels.gpu                 # both, into bench/results/gpu.md
python -m bench.kernels.gpu --no-contract   # only the measurements, one minute
python -m bench.kernels.gpu --trial         # tests the script on a CPU, at sizes too small to measure
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.errors import KernelError
from clearhead.kernels import Problem
from clearhead.kernels.second_pass import Wanted
from clearhead.kernels.second_pass import statistics as second_pass

RESULTS = Path(__file__).parents[1] / "results" / "gpu.md"
CONTRACT = ["tests/kernels/contract/test_contract.py", "tests/kernels/gpu/test_triton.py"]
SECONDS = 230  # limit for the whole script
CONTRACT_SECONDS = 130  # limit for the contract, part of SECONDS
SHAPES = [(4, 16, 16, 2048, 64), (1, 32, 8, 8192, 128)]  # B, H, H_kv, L, D
TRIAL_SHAPES = [(1, 2, 1, 37, 16)]
RUNS, WARM_UP = 20, 3

NO_TIME = "no time was left"

Step = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """One piece of work: median milliseconds of ours and of a peer, or the reason why one is missing."""

    work: str
    shape: str
    ours: float | str
    kernel: str
    peer: str
    theirs: float | str
    error: float | None = None  # the largest difference of the two outputs


class Budget:
    """The remaining seconds of a run; no row starts that is likely to end too late.

    Args:
        seconds: in total, from now.
        clock: returns the time in seconds.
    """

    def __init__(self, seconds: float = SECONDS, clock: Clock = time.monotonic) -> None:
        self._clock, self._began, self._seconds = clock, clock(), seconds
        self._longest = 0.0

    @property
    def spent(self) -> float:
        return self._clock() - self._began

    @property
    def left(self) -> float:
        return self._seconds - self.spent

    def run(self, row: Callable[[], list[Row]]) -> list[Row] | None:
        """Return the row's result, or None if less time is left than the longest row so far took."""
        if self.left <= self._longest:
            return None
        before = self.spent
        made = row()
        self._longest = max(self._longest, self.spent - before)
        return made


def milliseconds(step: Step, device: torch.device, budget: Budget) -> float:
    """The median time of a step, by the device's own clock. When the time is up, that of the runs until then."""
    times: list[float] = []
    for run in range(WARM_UP + RUNS if device.type == "cuda" else 2):
        if times and budget.left <= 0:
            break
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            step()
            end.record()
            torch.cuda.synchronize()
            elapsed = start.elapsed_time(end)
        else:
            began = time.perf_counter()
            step()
            elapsed = 1000 * (time.perf_counter() - began)
        if run >= WARM_UP or device.type == "cpu":
            times.append(elapsed)
    return statistics.median(times)


def timed(step: Step, device: torch.device, budget: Budget) -> float | str:
    """The milliseconds, or the reason why there are none; a peer may run out of memory."""
    if budget.left <= 0:
        return NO_TIME
    try:
        return milliseconds(step, device, budget)
    except (RuntimeError, KernelError) as error:
        return str(error).partition("\n")[0][:80]


def tensors(shape: tuple[int, ...], device: torch.device, learns: bool = False) -> list[Tensor]:
    batch, heads, kv_heads, length, width = shape
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    make = torch.Generator(device).manual_seed(0)
    sizes = [(batch, count, length, width) for count in (heads, kv_heads, kv_heads)]
    return [torch.randn(size, device=device, dtype=dtype, generator=make).requires_grad_(learns) for size in sizes]


def backward_of(forward: Callable[[], Tensor], inputs: list[Tensor]) -> Step:
    out = forward()
    upstream = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, inputs, upstream, retain_graph=True)


def terms(heads: int, device: torch.device) -> dict[str, dict[str, object]]:
    """Options that torch's fused operators support, and others that they do not."""
    return {
        "causal": {"is_causal": True},
        "soft cap": {"is_causal": True, "softcap": 30.0},
        "sinks": {"is_causal": True, "sinks": torch.zeros(heads, device=device)},
        "ALiBi": {"is_causal": True, "alibi": torch.rand(heads, device=device) / 8},
        "window of 512": {"reach": (-511, 0)},
    }


def rows(device: torch.device, shapes: list[tuple[int, ...]], budget: Budget) -> list[Row]:
    """Every row, shape by shape; rows for which no time is left say so."""
    work: list[tuple[str, tuple[int, ...], Callable[[], list[Row]]]] = []
    for shape in shapes:
        for name, options in terms(shape[1], device).items():
            work.append((name, shape, partial(attention_rows, name, shape, device, options, budget)))
        work.append(("statistics", shape, partial(statistics_rows, shape, device, budget)))
    table: list[Row] = []
    for name, shape, row in work:
        table += budget.run(row) or [Row(name, "×".join(map(str, shape)), NO_TIME, "", "", NO_TIME)]
        print(name, shape, flush=True)
    return table


def attention_rows(
    name: str, shape: tuple[int, ...], device: torch.device, options: dict[str, object], budget: Budget
) -> list[Row]:
    """Forward and backward, compared with torch's function if it computes the same, else with blocked torch."""
    inputs = tensors(shape, device, learns=True)
    problem = Problem(*inputs, shape[-1] ** -0.5, **options)
    chosen = kernels.select(problem).kernel
    is_plain = name == "causal"

    def ours() -> Tensor:
        return kernels.run(problem).out

    def peer() -> Tensor:
        if is_plain:
            return F.scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=shape[1] != shape[2])
        return kernels.run(problem, kernel="torch").out

    label = "F.scaled_dot_product_attention" if is_plain else "blocked torch"
    written = "×".join(map(str, shape))
    with torch.no_grad():
        error = (ours().float() - peer().float()).abs().max().item()
        forward = Row(
            f"{name}, forward", written, timed(ours, device, budget), chosen, label, timed(peer, device, budget), error
        )
    grads = [timed(backward_of(function, inputs), device, budget) for function in (ours, peer)]
    return [forward, Row(f"{name}, backward", written, grads[0], chosen, label, grads[1])]


def statistics_rows(shape: tuple[int, ...], device: torch.device, budget: Budget) -> list[Row]:
    """Entropy, maximum and column sums, compared with the dense weights."""
    inputs = tensors(shape, device)
    problem = Problem(*inputs, shape[-1] ** -0.5, is_causal=True)
    lse = kernels.run(problem).lse
    wanted = Wanted(entropy=True, maximum=True, received=True)

    def peer() -> tuple[Tensor, ...]:
        query, key, _ = inputs
        products = query @ key.repeat_interleave(problem.group, 1).mT * problem.attention.scale
        weights = products.masked_fill_(torch.ones_like(products[0, 0], dtype=torch.bool).triu(1), -torch.inf).softmax(
            -1
        )
        return torch.special.entr(weights).sum(-1), weights.amax(-1), weights.sum(2)

    ours, theirs = (timed(step, device, budget) for step in (lambda: second_pass(problem, lse, wanted), peer))
    written = "×".join(map(str, shape))
    return [Row("entropy, maximum, column sums", written, ours, "second pass", "dense weights", theirs)]


def contract(device: torch.device) -> str:
    """Run the contract on the device and return its result."""
    command = [sys.executable, "-m", "pytest", "-q", *CONTRACT, "--device", device.type, "--tier", "stress"]
    command += ["-k", "(triton or torch) and not compiles", "-p", "no:cacheprovider"]
    if find_spec("xdist"):
        command += ["-n", "8"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=CONTRACT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"did not finish within {CONTRACT_SECONDS} s"
    failed = [line for line in run.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return "\n".join([*failed[:40], run.stdout.strip().rpartition("\n")[2]])


def markdown(table: list[Row], device: torch.device, verdict: str) -> str:
    """The table, with the device and the versions that were measured."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else "a CPU: a trial of the script, not a measurement"
    triton = __import__("triton").__version__ if find_spec("triton") else "none"
    lines = [f"# {name}", "", f"torch {torch.__version__}, CUDA {torch.version.cuda}, Triton {triton}.", ""]
    lines += ["Contract:", "", *(f"    {line}" for line in verdict.splitlines()), ""]
    lines += ["| work | B×H×H_kv×L×D | ours, ms | by | peer | peer, ms | peer / ours | largest difference |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in table:
        both = isinstance(row.ours, float) and isinstance(row.theirs, float)
        ratio = f"{row.theirs / row.ours:.2f}" if both else ""
        ours, theirs = (f"{x:.3f}" if isinstance(x, float) else x for x in (row.ours, row.theirs))
        error = "" if row.error is None else f"{row.error:.1e}"
        cells = (row.work, row.shape, ours, row.kernel, row.peer, theirs, ratio, error)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("--no-contract", action="store_true", help="only measure")
    parser.add_argument("--trial", action="store_true", help="test the script on a CPU, at tiny sizes")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"file for the table (default {RESULTS})")
    options = parser.parse_args(arguments)
    device = torch.device("cpu" if options.trial else "cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        print("This machine has no CUDA device, so nothing was measured. --trial tests the script.", file=sys.stderr)
        return 2
    budget = Budget()
    verdict = "not run" if options.no_contract or options.trial else contract(device)
    text = markdown(rows(device, TRIAL_SHAPES if options.trial else SHAPES, budget), device, verdict)
    options.out.write_text(text, encoding="utf-8")
    print(f"{text}\n{options.out}, {budget.spent:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
