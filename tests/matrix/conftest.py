"""Small blocks, so that the small test matrices are processed in many blocks."""

import pytest

from clearhead.matrix import logits, products
from clearhead.matrix.questions import pooling, statistics


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(logits, "BLOCK", 499)
    monkeypatch.setattr(logits, "MIN_ROWS", 7)
    monkeypatch.setattr(products, "BLOCK", 3001)
    monkeypatch.setattr(products, "WIDEST", 7)
    monkeypatch.setattr(statistics, "BLOCK", 499)
    monkeypatch.setattr(pooling, "TABLE", 499)
