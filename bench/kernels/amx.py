"""Three dtypes compared with torch on this CPU's best target: `python -m bench.kernels.amx`, under 3 minutes.

Prints the ratios that the kernels on Intel AMX must reach: measured in one process, A B A B, with geometric means over
five shapes. `--threads 1` pins the process to one core, which varies less on a shared machine; `--target name` selects
a target.
"""

import argparse
import os
from math import exp, log

import torch
import torch.nn.functional as F

import clearhead
from bench.harness.measure import Way, interleaved
from bench.harness.work import inputs
from clearhead import kernels
from clearhead.kernels.native.cpu_targets import current

SHAPES = ((1, 8, 512, 64), (1, 8, 2048, 64), (1, 8, 4096, 64), (8, 8, 128, 64), (1, 8, 2048, 128))
# dtype -> the ratios to torch that must be reached: forward full, forward causal, backward full.
AT_LEAST = {torch.bfloat16: (1.9, 2.6, 1.5), torch.float32: (1.4, 1.8, 1.3), torch.float16: (2.0, 2.0, 1.0)}


def ways_of(shape: tuple[int, ...], dtype: torch.dtype, causal: bool, backward: bool) -> dict[str, Way]:
    """Ours and torch's way to compute one shape."""
    query, key, value = (tensor.requires_grad_(backward) for tensor in inputs(shape, dtype))

    def ours() -> torch.Tensor:
        return clearhead.attention(query, key, value, is_causal=causal)

    def theirs() -> torch.Tensor:
        return F.scaled_dot_product_attention(query, key, value, is_causal=causal)

    if not backward:
        return {"ours": ours, "torch": theirs}
    upstream = torch.randn(shape).to(dtype)

    def gradients_of(out: torch.Tensor) -> Way:
        return lambda: torch.autograd.grad(out, (query, key, value), upstream, retain_graph=True)

    return {"ours": gradients_of(ours()), "torch": gradients_of(theirs())}


def row(dtype: torch.dtype, causal: bool, backward: bool, seconds: float, wanted: float) -> str:
    """One row of the table: the ratio at each shape, from the best rounds, and their geometric mean."""
    ratios = []
    for shape in SHAPES:
        with torch.set_grad_enabled(backward):
            timings = interleaved(ways_of(shape, dtype, causal, backward), seconds)
        ratios.append(timings["torch"].best / timings["ours"].best)
    mean = exp(sum(map(log, ratios)) / len(ratios))
    name = (
        f"{'backward' if backward else 'forward'} {str(dtype).removeprefix('torch.')}, {'causal' if causal else 'full'}"
    )
    cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"| {name} | {cells} | {mean:.2f} | {wanted} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.kernels.amx",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--target", default=None)
    parser.add_argument("--seconds", type=float, default=2.5, help="for each figure (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.threads == 1:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    chosen = arguments.target or current(torch.bfloat16)[0].name
    print(f"target {chosen}, {arguments.threads} threads; ratios to torch {torch.__version__}")
    print("| work | " + " | ".join(map(str, SHAPES)) + " | mean | at least |")
    print("|---|" + "---|" * (len(SHAPES) + 2))
    with kernels.target(chosen):
        for dtype, wanted in AT_LEAST.items():
            print(row(dtype, False, False, arguments.seconds, wanted[0]), flush=True)
            print(row(dtype, True, False, arguments.seconds, wanted[1]), flush=True)
            if dtype is not torch.float16:
                print(row(dtype, False, True, arguments.seconds, wanted[2]), flush=True)


if __name__ == "__main__":
    main()
