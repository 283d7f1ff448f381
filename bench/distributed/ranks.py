"""Attention over ranks on this machine: time compared with one process, the share of waiting, and memory per rank.

`python -m bench.distributed.ranks` takes a few minutes on two cores; with `--length 4096` half a minute. The single
process has as many threads as there are ranks; each rank has one. Rounds alternate, and the ratio is of medians.
"""

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import clearhead
from bench.harness import memory
from clearhead import distributed

HEADS, WIDTH = 8, 64


def inputs(length: int, heads: int) -> list[torch.Tensor]:
    """Query, key and value of one sequence, (1, H, L, D)."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(1, heads, length, WIDTH, generator=generator) for _ in range(3)]


def alone(length: int, ranks: int, causal: bool, backward: bool) -> float:
    """The seconds of one process with a thread for each rank."""
    torch.set_num_threads(ranks)
    tensors = [tensor.requires_grad_(backward) for tensor in inputs(length, HEADS)]
    start = time.perf_counter()
    out = clearhead.attention(*tensors, is_causal=causal)
    if backward:
        out.sum().backward()
    return time.perf_counter() - start


def of_rank(rank: int, ranks: int, length: int, causal: bool, backward: bool) -> dict[str, float]:
    """The seconds of this rank, and how much of them it waited."""
    placement = "zigzag" if causal else "contiguous"
    own = [distributed.shard(t, placement=placement).requires_grad_(backward) for t in inputs(length, HEADS)]
    dist.barrier()
    start = time.perf_counter()
    with distributed.timing() as spent:
        out = distributed.attention(*own, is_causal=causal, placement=placement, algorithm="ring")
        if backward:
            out.sum().backward()
    return {"seconds": time.perf_counter() - start, "waiting": spent.waiting, "sent": float(spent.sent)}


def memory_of_rank(rank: int, ranks: int, length: int) -> dict[str, float]:
    """The MiB that causal attention of two heads adds to a rank, including its inputs."""
    each = length // ranks
    memory.reset_peak()
    before = memory.peak()
    own = [torch.randn(1, 2, each, WIDTH) for _ in range(3)]
    distributed.attention(*own, is_causal=True, placement="zigzag", algorithm="ring")
    return {"MiB": (memory.peak() - before) / 2**20}


def together(ranks: int, function: Any, *arguments: Any) -> list[dict[str, float]]:
    """Call the function in `ranks` new processes of one thread each, and return their results."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        processes = [
            context.Process(target=_run, args=(answers, str(Path(folder) / "store"), rank, ranks, function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        results = dict(answers.get(timeout=600) for _ in processes)
        for process in processes:
            process.join()
    return [results[rank] for rank in range(ranks)]


def _run(answers: Any, store: str, rank: int, ranks: int, function: Any, arguments: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    warm = [torch.zeros(1, 2, 16, WIDTH)] * 3
    distributed.attention(*warm, algorithm="ring")
    answers.put((rank, function(rank, ranks, *arguments)))
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.distributed.ranks", description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=16_384, help="tokens of the sequence")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=int, default=65_536, metavar="LENGTH", help="tokens for the memory table")
    options = parser.parse_args()
    report: dict[str, Any] = {"tokens": options.length, "ranks": options.ranks}
    for causal in (False, True):
        for backward in (False, True):
            ones, rounds = [], []
            for _ in range(options.rounds):
                ones.append(alone(options.length, options.ranks, causal, backward))
                rounds.append(together(options.ranks, of_rank, options.length, causal, backward))
            slowest = [max(rank["seconds"] for rank in each) for each in rounds]
            waiting = statistics.median(sum(rank["waiting"] for rank in each) / options.ranks for each in rounds)
            name = f"{'causal' if causal else 'full'}, {'forward and backward' if backward else 'forward'}"
            report[name] = {
                "one process s": round(statistics.median(ones), 3),
                "ranks s": round(statistics.median(slowest), 3),
                "of ideal": round(statistics.median(ones) / statistics.median(slowest), 3),
                "waiting": round(waiting / statistics.median(slowest), 3),
                "sent MiB a rank": round(rounds[0][0]["sent"] / 2**20, 1),
            }
    report[f"MiB a rank at {options.memory} tokens"] = {
        ranks: round(max(rank["MiB"] for rank in together(ranks, memory_of_rank, options.memory)), 1)
        for ranks in (1, 2, 4)
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
