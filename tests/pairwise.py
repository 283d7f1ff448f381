"""Samples of a product of parameters: one in which every pair of values appears, one in which every value does."""

import heapq
from collections.abc import Hashable, Iterator, Sequence
from itertools import chain, combinations, product

# What one parameter is set to in a row: one value, or several that are paired with the others' one by one.
Values = tuple[Hashable, ...]


def pairwise(rows: Sequence[Sequence[Values]], names: Sequence[Hashable] = ()) -> list[int]:
    """The indices, in order, of rows that together have every pair of values that appears in any row.

    A pair is two values of two different parameters. Each value alone appears too. The same rows always give the same
    sample.

    rows: for each row, the values of each parameter.
    names: for each row, a name that must appear in the sample too, with whatever other values.
    """
    pairs = [tuple(_pairs(row)) for row in rows]
    if names:
        pairs = [(*pair, ("name", name)) for pair, name in zip(pairs, names, strict=True)]
    return _cover(pairs)


def each_value(rows: Sequence[Sequence[Values]]) -> list[int]:
    """The indices, in order, of rows that together have every value of each parameter that appears in any row."""
    return _cover([tuple(chain.from_iterable(_values(row))) for row in rows])


def _cover(rows: Sequence[tuple[Hashable, ...]]) -> list[int]:
    """The indices, in order, of rows that together have every member of any row: a greedy set cover.

    Among rows that add equally many new members, the one whose members were seen least often is chosen, so that
    combinations spread evenly.
    """
    # Members as numbers: hashing nested tuples takes most of the time otherwise (5 of 8 s for tests/kernels).
    numbers: dict[Hashable, int] = {}
    members = [[numbers.setdefault(member, len(numbers)) for member in row] for row in rows]
    seen = [0] * len(numbers)

    def cost(row: int) -> tuple[int, int, int]:
        times = [seen[number] for number in members[row]]
        return -times.count(0), sum(times), row

    # A cost only grows, so the first row of the heap whose cost is up to date is the cheapest of all.
    heap = [cost(row) for row in range(len(rows))]
    heapq.heapify(heap)
    missing = len(numbers)
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
        for number in members[row]:
            seen[number] += 1
    return sorted(chosen)


def _values(row: Sequence[Values]) -> list[list[Hashable]]:
    return [[(place, value) for value in values] for place, values in enumerate(row)]


def _pairs(row: Sequence[Values]) -> Iterator[Hashable]:
    named = _values(row)
    for values in named:
        yield from values
    for some, others in combinations(named, 2):
        yield from product(some, others)
