"""How the Triton kernels run: in the interpreter or compiled, and with which tiles. Does not import Triton."""

import os
from functools import cache
from typing import NamedTuple


@cache
def is_interpreted() -> bool:
    """Return whether the kernels run on the CPU in Triton's interpreter: for tests, and thousands of times slower.

    Triton reads the variable when a kernel is defined, so a change of it later has no effect.
    """
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")


class Blocks(NamedTuple):
    """The tile size of a kernel, and how it is executed.

    Attributes:
        rows, keys: the sizes of a tile.
        warps: how many warps of 32 threads share a tile.
        stages: how many tiles of keys are loaded ahead.
    """

    rows: int
    keys: int
    warps: int
    stages: int


FORWARD, BACKWARD, SECOND_PASS = "forward", "backward", "second pass"

# The tiles of which Triton's autotuner selects the fastest once: by pass, and by the largest row of a query or value in
# bytes, which determines the shared memory of a tile. Each fits in the 164 KiB of sm_80;
# tests/kernels/gpu/triton_builds.py compiles every one.
TABLE: dict[tuple[str, int], tuple[Blocks, ...]] = {
    (FORWARD, 128): (Blocks(128, 64, 4, 3), Blocks(64, 64, 4, 3), Blocks(16, 64, 4, 2)),
    (FORWARD, 256): (Blocks(128, 64, 8, 2), Blocks(64, 32, 4, 2), Blocks(16, 64, 4, 2)),
    (FORWARD, 1024): (Blocks(64, 32, 8, 1), Blocks(16, 32, 4, 1)),
    (BACKWARD, 128): (Blocks(64, 64, 4, 2), Blocks(32, 64, 4, 2)),
    (BACKWARD, 256): (Blocks(32, 64, 4, 2), Blocks(32, 32, 4, 1)),
    (BACKWARD, 1024): (Blocks(16, 16, 4, 1),),
    (SECOND_PASS, 128): (Blocks(64, 64, 4, 2), Blocks(32, 64, 4, 2)),
    (SECOND_PASS, 256): (Blocks(64, 64, 8, 2), Blocks(32, 64, 4, 2)),
    (SECOND_PASS, 1024): (Blocks(16, 64, 4, 1),),
}
# Triton's interpreter takes as long for a small tile as for a large one; these still split the tests' problems.
INTERPRETED = {FORWARD: Blocks(64, 64, 1, 1), BACKWARD: Blocks(32, 64, 1, 1), SECOND_PASS: Blocks(64, 64, 1, 1)}

MOST_BYTES = max(most for _, most in TABLE)


def candidates(kind: str, row_bytes: int) -> tuple[Blocks, ...]:
    """Return the blocks among which a pass is tuned.

    Args:
        kind: FORWARD, BACKWARD or SECOND_PASS.
        row_bytes: bytes of the widest row, padded to a power of 2.

    >>> candidates(BACKWARD, 512)
    (Blocks(rows=16, keys=16, warps=4, stages=1),)
    """
    return next(blocks for (name, most), blocks in TABLE.items() if name == kind and row_bytes <= most)
