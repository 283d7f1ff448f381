"""A sample of a product of parameters in which every pair of values appears."""

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations, product

# What one parameter is set to in a row: one value, or several that are paired with the others' one by one.
Values = tuple[Hashable, ...]


def pairwise(rows: Sequence[Sequence[Values]], names: Sequence[Hashable] = ()) -> list[int]:
    """The indices, in order, of rows that together have every pair of values that appears in any row.

    A pair is two values of two different parameters. Each value alone appears too. Among rows that add equally many new
    pairs, the one whose pairs were seen least often is chosen, so that combinations spread evenly. The same rows always
    give the same sample.

    rows: for each row, the values of each parameter.
    names: for each row, a name that must appear in the sample too, with whatever other values.
    """
    pairs = [tuple(_pairs(row)) for row in rows]
    if names:
        pairs = [(*pair, ("name", name)) for pair, name in zip(pairs, names, strict=True)]
    seen: Counter[Hashable] = Counter()

    def cost(row: int) -> tuple[int, int, int]:
        times = [seen[pair] for pair in pairs[row]]
        return -times.count(0), sum(times), row

    # A cost only grows, so the first row of the heap whose cost is up to date is the cheapest of all.
    heap = [cost(row) for row in range(len(rows))]
    heapq.heapify(heap)
    missing = len({pair for row in pairs for pair in row})
    chosen = []
    while missing:
        row = heap[0][2]
        now = cost(row)
        if now != heap[0]:
            heapq.heapreplace(heap, now)
            continue
        heapq.heappop(heap)
        chosen.append(row)
        missing += now[0]
        seen.update(pairs[row])
    return sorted(chosen)


def _pairs(row: Sequence[Values]) -> Iterator[Hashable]:
    named = [[(place, value) for value in values] for place, values in enumerate(row)]
    for values in named:
        yield from values
    for some, others in combinations(named, 2):
        yield from product(some, others)
