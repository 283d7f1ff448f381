"""What is measured: the tasks, and what one costs on a kernel."""

from typing import NamedTuple

import torch

LINEAR = "linear"
# What a call of attention counts as: by its number of queries, for kernels group them, and by whether it learns.
FORWARD_TASKS = {1: "one query", 8: "few queries", 16: "short", None: "forward"}
GRADIENT_TASKS = {1: "one query, gradients", 8: "few queries, gradients", 16: "short, gradients", None: "gradients"}
# Up to FEW_KEYS keys a head costs what a whole block of them does, whatever is in it; beyond, its multiply-adds count.
FEW_KEYS = 64
MANY_KEYS = {task: f"{task}, many keys" for task in ("few queries", "short")}
TASKS = (*FORWARD_TASKS.values(), *MANY_KEYS.values(), *GRADIENT_TASKS.values(), LINEAR)
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
    tasks = GRADIENT_TASKS if learns else FORWARD_TASKS
    task = next((task for most, task in tasks.items() if most is not None and queries <= most), tasks[None])
    return MANY_KEYS.get(task, task) if keys > FEW_KEYS else task


def share(batch_heads: int, queries: int, keys: int, width: int, threads: int) -> tuple[int, float]:
    """How many heads, and how many multiply-adds, one of so many threads computes of a call.

    >>> share(8, 512, 512, 64, threads=2)
    (4, 134217728.0)
    """
    return -(-batch_heads // threads), 2.0 * batch_heads * queries * keys * width / threads
