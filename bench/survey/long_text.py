"""Every statistic of one head of a very long text: `python -m bench.survey.long_text --length 131072`."""

import argparse
import resource
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from clearhead import AttentionMatrix


def resident() -> int:
    """The bytes of memory this process holds now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def most_resident() -> int:
    """The most bytes it has ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.survey.long_text", description=__doc__)
    parser.add_argument("--length", type=int, default=131_072, help="queries and keys")
    parser.add_argument("--width", type=int, default=64, help="head_dim")
    parser.add_argument("--cells", type=int, default=512, help="cells of the map, each way")
    options = parser.parse_args()
    console = Console()
    make = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, options.length, options.width, generator=make)
    before, start = resident(), time.perf_counter()
    with Progress(*Progress.get_default_columns(), console=console) as bar:
        task = bar.add_task(f"{options.length:,} × {options.length:,} weights", total=1.0)
        matrix = AttentionMatrix(query, key, is_causal=True)
        cells = (options.cells, options.cells)
        found = matrix.survey(k=8, cells=cells, progress=lambda done: bar.update(task, completed=done))
    seconds, more = time.perf_counter() - start, (most_resident() - before) / 2**20
    console.print(f"{seconds:.1f} s on {torch.get_num_threads()} threads, {more:.0f} MiB beyond queries and keys")
    weights, keys = found.topk
    console.print(
        f"mean entropy {found.entropy.mean():.3f} nats; columns add up to {found.received.double().sum():,.0f}"
    )
    console.print(f"the last row's largest weight is {weights[0, 0, -1, 0]:.2e}, at key {int(keys[0, 0, -1, 0]):,}")


if __name__ == "__main__":
    main()
