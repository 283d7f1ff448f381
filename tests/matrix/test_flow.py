"""Attention flow compared with a maximum flow by augmenting paths, and with rollout for one layer."""

import pytest
import torch

from clearhead.errors import TooLargeError
from clearhead.matrix import AttentionMatrix, flow, rollout

from .cases import Case

LAYERS = [Case(length=5, keys=5, heads=2, kv_heads=2), Case(length=5, keys=5, heads=2, kv_heads=2, is_causal=True)]


def widest(capacity: dict[tuple[int, int], float], source: int, sink: int, nodes: int) -> float:
    """Return the maximum flow by Edmonds & Karp 1972: augment the shortest path with capacity left."""
    left, total = dict(capacity), 0.0
    while True:
        previous, queue = {source: source}, [source]
        for here in queue:
            for there in range(nodes):
                if there not in previous and left.get((here, there), 0.0) > 1e-12:
                    previous[there] = here
                    queue.append(there)
        if sink not in previous:
            return total
        path, here = [], sink
        while here != source:
            path.append((previous[here], here))
            here = previous[here]
        least = min(left[edge] for edge in path)
        for a, b in path:
            left[a, b] -= least
            left[b, a] = left.get((b, a), 0.0) + least
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


def test_a_long_text_is_refused_with_a_pointer_to_rollout():
    q = torch.zeros(1, 1, 400, 2)
    with pytest.raises(TooLargeError, match=r"160000 edges; the limit is 100000\. Use rollout"):
        flow([AttentionMatrix(q, q)], [0])
