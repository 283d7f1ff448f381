"""Ring attention over 8 to 512 ranks, simulated from timings of its parts on this machine.

`python -m bench.distributed.scaling` takes half a minute. It prints the measured pieces and the table of
docs/scaling.md; `--pieces JSON` computes the table from pieces that were measured before. Measured are the processor
seconds of one thread for a block of queries against a block of keys, and for merging a part into a row. Assumed are
the links, and that a block on the diagonal takes half of a full one.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

import clearhead
from clearhead.distributed.ring import Merged

HEADS, KV_HEADS, WIDTH = 32, 8, 128  # a layer of Llama 3 8B
BYTES = 4


@dataclass(frozen=True)
class Link:
    """The link from a rank to the next: bytes per second each way, and seconds until the first byte arrives."""

    name: str
    bandwidth: float
    latency: float


# 85 % of the standards' nominal bandwidths; latencies of a message between two machines, as orders of magnitude.
LINKS = (
    Link("10 Gbit Ethernet", 0.85 * 10e9 / 8, 30e-6),
    Link("100 Gbit Ethernet", 0.85 * 100e9 / 8, 10e-6),
    Link("400 Gbit InfiniBand", 0.85 * 400e9 / 8, 2e-6),
)


@dataclass(frozen=True)
class Pieces:
    """The measured times of one rank's processor.

    Attributes:
        block: the seconds for l queries against l keys of one query head, as pairs (l, seconds).
        merge: the seconds to merge one row of one head.
    """

    block: tuple[tuple[int, float], ...]
    merge: float

    def seconds(self, length: int, keys: int) -> float:
        """The seconds for one head; the cost per pair is interpolated between the measured lengths."""
        lengths = [math.log(each) for each, _ in self.block]
        costs = [seconds / each**2 for each, seconds in self.block]
        at = min(max(math.log(min(length, keys)), lengths[0]), lengths[-1])
        after = next(index for index in range(1, len(lengths)) if at <= lengths[index])
        share = (at - lengths[after - 1]) / (lengths[after] - lengths[after - 1])
        return length * keys * (costs[after - 1] * (1 - share) + costs[after] * share)

    @classmethod
    def read(cls, text: str) -> "Pieces":
        """Pieces as `main` prints them: JSON with "block" and "merge"."""
        data = json.loads(text)
        return cls(tuple((int(length), float(seconds)) for length, seconds in data["block"]), float(data["merge"]))

    def faster(self, times: float) -> "Pieces":
        """The times of a processor that is `times` times as fast."""
        return Pieces(tuple((length, seconds / times) for length, seconds in self.block), self.merge / times)


@dataclass(frozen=True)
class Simulated:
    """One layer's causal forward pass over ranks: seconds, the share of ideal speed, and the share spent waiting."""

    seconds: float
    of_ideal: float
    waiting: float


def simulate(pieces: Pieces, length: int, ranks: int, link: Link) -> Simulated:
    """Simulate the steps of the ring under a causal mask with zigzag placement.

    A rank holds two runs of length / 2n positions. With its own keys it computes three blocks of runs, two of them on
    the diagonal, and merges one; with another rank's keys always two, and merges both. It sends keys while it computes,
    and waits if keys are late. One process computes half of all pairs and merges nothing.
    """
    run = length // (2 * ranks)
    diagonal, full = pieces.seconds(run, run) / 2, pieces.seconds(run, run)
    merge = run * pieces.merge
    own, other = HEADS * (2 * diagonal + full + merge), HEADS * 2 * (full + merge)
    transfer = link.latency + 2 * run * KV_HEADS * 2 * WIDTH * BYTES / link.bandwidth
    waits = [max(0.0, transfer - work) for work in [own] + [other] * (ranks - 2)] if ranks > 1 else []
    seconds = own + (ranks - 1) * other + sum(waits)
    alone = HEADS * pieces.seconds(length, length) / 2
    return Simulated(seconds, alone / ranks / seconds, sum(waits) / seconds)


def measure(lengths: Sequence[int]) -> Pieces:
    """Measure the times on one thread."""
    torch.set_num_threads(1)
    blocks = []
    for length in lengths:
        query, key, value = (torch.randn(1, heads, length, WIDTH) for heads in (4, 1, 1))
        call = lambda q=query, k=key, v=value: clearhead.attention(q, k, v, enable_gqa=True, return_lse=True)  # noqa: E731
        blocks.append((length, _median(call) / 4))
    query = torch.randn(1, 4, 1024, WIDTH)
    total, lse = Merged(query, WIDTH), torch.randn(1, 4, 1024)
    merge = _median(lambda: total.add(slice(0, 1024), query, lse)) / (4 * 1024)
    return Pieces(tuple(blocks), merge)


def _median(call: Callable[[], object], rounds: int = 5) -> float:
    call()
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        call()
        taken.append(time.thread_time() - start)
    return statistics.median(taken)


def table(pieces: Pieces, lengths: Sequence[int], ranks: Sequence[int], speeds: Sequence[float]) -> list[str]:
    """The Markdown table: the share of ideal speed and, if there is any, of waiting."""
    names = [f"{speed:g}×, {link.name}" for speed in speeds for link in LINKS]
    lines = ["| tokens | ranks | " + " | ".join(names) + " |", "|--:" * (len(names) + 2) + "|"]
    for length in lengths:
        for size in ranks:
            steps = [simulate(pieces.faster(speed), length, size, link) for speed in speeds for link in LINKS]
            shown = [
                f"{step.of_ideal:.0%}" + (f" ({step.waiting:.0%})" if step.waiting > 0.005 else "") for step in steps
            ]
            lines.append(f"| {length:,} | {size} | " + " | ".join(shown) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.distributed.scaling", description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[131_072, 1_048_576], help="tokens of the sequence")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument(
        "--speeds", type=float, nargs="+", default=[1, 64, 2000], help="of a rank, relative to this core"
    )
    parser.add_argument(
        "--pieces", type=Pieces.read, metavar="JSON", help="pieces measured before, as this command prints them"
    )
    options = parser.parse_args()
    pieces = options.pieces or measure([128, 256, 512, 1024, 2048, 4096])
    print(json.dumps(asdict(pieces)), end="\n\n")
    print("\n".join(table(pieces, options.lengths, options.ranks, options.speeds)))


if __name__ == "__main__":
    main()
