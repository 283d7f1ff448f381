"""What is measured: the tasks, and what one costs on a kernel."""

from typing import NamedTuple

import torch

LINEAR, LINEAR_FEW = "linear", "linear, few rows"
FEW_ROWS = 3  # torch computes so many rows of a layer as matrix times vector
ANY = 2**63 - 1
# Up to FEW_KEYS keys a head costs what a whole block of them does, whatever is in it; beyond, its multiply-adds count.
FEW_KEYS = 64


class Calls(NamedTuple):
    """A task of attention: the calls with at most so many queries and keys, with or without gradients."""

    task: str
    learns: bool
    queries: int
    keys: int


# The first that holds a call is its task: kernels group queries, so their number counts.
CALLS = (
    Calls("one query", False, 1, ANY),
    Calls("few queries", False, 8, FEW_KEYS),
    Calls("few queries, many keys", False, 8, ANY),
    Calls("short", False, 16, FEW_KEYS),
    Calls("short, many keys", False, 16, ANY),
    Calls("forward", False, ANY, ANY),
    Calls("one query, gradients", True, 1, ANY),
    Calls("few queries, gradients", True, 8, ANY),
    Calls("short, gradients", True, 16, ANY),
    Calls("gradients", True, ANY, ANY),
)
GRADIENT_TASKS = tuple(calls.task for calls in CALLS if calls.learns)
TASKS = (*(calls.task for calls in CALLS), LINEAR, LINEAR_FEW)
DTYPES = {str(dtype)[6:]: dtype for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)}


class Cost(NamedTuple):
    """What a task costs on one kernel, in microseconds: each call, each head, and each million multiply-adds.

    Heads and multiply-adds are those of one thread.
    """

    call: float
    head: float
    work: float

    def at(self, heads: int, multiply_adds: float) -> float:
        """The microseconds of a call.

        >>> Cost(call=3.0, head=0.5, work=50.0).at(4, 200_000)
        15.0
        """
        return self.call + self.head * heads + self.work * multiply_adds / 1e6


# (task, dtype) -> (ours, torch's).
Costs = dict[tuple[str, torch.dtype], tuple[Cost, Cost]]


def task_of(queries: int, keys: int, learns: bool) -> str:
    """The task that a call with so many queries and keys belongs to.

    >>> task_of(5, 5, learns=False), task_of(13, 512, learns=False), task_of(512, 512, learns=True)
    ('few queries', 'short, many keys', 'gradients')
    """
    return next(c.task for c in CALLS if c.learns == learns and queries <= c.queries and keys <= c.keys)


def share(batch_heads: int, queries: int, keys: int, width: int, threads: int) -> tuple[int, float]:
    """How many heads, and how many multiply-adds, one of so many threads computes of a call.

    >>> share(8, 512, 512, 64, threads=2)
    (4, 134217728.0)
    """
    return -(-batch_heads // threads), 2.0 * batch_heads * queries * keys * width / threads
