"""Statistics of the weights: their cost compared with a plain forward pass, and with stored weights."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.harness.measure import Way
from bench.harness.work import Work, inputs
from clearhead import kernels
from clearhead.kernels import Problem, Wanted

TOP = 8
# The name of a row: what is wanted, the statistic that is checked, and the same computed from stored weights.
ROWS: dict[str, tuple[Wanted, str, Callable[[Tensor], Tensor]]] = {
    "entropy and maximum": (Wanted(entropy=True, maximum=True), "entropy", lambda w: torch.special.entr(w).sum(-1)),
    "column sums": (Wanted(received=True), "received", lambda w: w.sum(-2)),
    f"top {TOP}": (Wanted(topk=TOP), "best", lambda w: w.topk(TOP).values),
}


def work(quick: bool) -> Iterator[Work]:
    for name in ROWS:
        yield _row(name, 1024 if quick else 4096)


def _row(name: str, length: int) -> Work:
    shape = (1, 8, length, 64)
    wanted, answer, from_weights = ROWS[name]

    def make() -> dict[str, Way]:
        query, key, value = inputs(shape, torch.float32)
        problem = Problem(query, key, value, 0.125)

        def ours() -> Any:
            if wanted.received:  # column sums need every row's lse first: a second pass
                return kernels.statistics(problem, kernels.run(problem, kernel="native").lse, wanted).received
            return getattr(kernels.run_with(problem, wanted)[1], answer)

        def plain() -> None:
            kernels.run(problem, kernel="native")

        def stored() -> Tensor:
            weights = (query @ key.mT * 0.125).softmax(-1)
            weights @ value
            return from_weights(weights)

        return {"ours": ours, "plain forward": plain, "stored weights": stored}

    return Work(f"forward and {name}", f"{shape}", 6.0 * 8 * length * length * 64, torch.float32, make)
