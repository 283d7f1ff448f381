"""Attention flow against a maximum flow found by augmenting paths, and where theory says what it is."""

import pytest
import torch

from clearhead.errors import TooLargeError
from clearhead.matrix import AttentionMatrix, flow, rollout

from .cases import Case

LAYERS = [Case(length=5, keys=5, heads=2, kv_heads=2), Case(length=5, keys=5, heads=2, kv_heads=2, is_causal=True)]


def widest(capacity: dict[tuple[int, int], float], source: int, sink: int, nodes: int) -> float:
    """Edmonds & Karp 1972: the shortest path with room left, until there is none."""
    room, total = dict(capacity), 0.0
    while True:
        came, queue = {source: source}, [source]
        for here in queue:
            for there in range(nodes):
                if there not in came and room.get((here, there), 0.0) > 1e-12:
                    came[there] = here
                    queue.append(there)
        if sink not in came:
            return total
        path, here = [], sink
        while here != source:
            path.append((came[here], here))
            here = came[here]
        least = min(room[edge] for edge in path)
        for a, b in path:
            room[a, b] -= least
            room[b, a] = room.get((b, a), 0.0) + least
        total += least


@pytest.mark.slow
def test_equals_augmenting_paths():
    ours = flow([case.matrix(torch.float64) for case in LAYERS], [0, 4])
    for sample in range(2):
        capacity = {}
        for layer, case in enumerate(LAYERS):
            mixed = 0.5 * case.dense(torch.float64)[0][sample].mean(0) + 0.5 * torch.eye(5)
            for row in range(5):
                for col in range(5):
                    capacity[5 * (layer + 1) + row, 5 * layer + col] = mixed[row, col].item()
        for index, position in enumerate((0, 4)):
            exact = torch.tensor([widest(capacity, 10 + position, token, 15) for token in range(5)])
            torch.testing.assert_close(ours[sample, index], (exact / exact.sum()).double())


@pytest.mark.slow
def test_one_layer_is_the_rollout():
    matrix = LAYERS[0].matrix(torch.float64)
    torch.testing.assert_close(flow([matrix], [1, 3]), rollout([matrix]).rows([1, 3]).double())


def test_refuses_a_long_text_and_names_rollout():
    q = torch.zeros(1, 1, 400, 2)
    with pytest.raises(TooLargeError, match=r"160000 pipes; the limit is 100000\. Use rollout"):
        flow([AttentionMatrix(q, q)], [0])
