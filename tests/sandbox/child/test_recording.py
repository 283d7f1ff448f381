"""What a program did in its tests: arguments, weights it returned, weights its softmax gave."""

import json

import pytest

from clearhead import sandbox
from clearhead.sandbox import Chunk

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")

TESTS = '''
q = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])


def test_shape():
    """Three rows"""
    assert attend(q, k=q).shape == (3, 3)


def test_second():
    """Wrong on purpose"""
    assert attend(q, q)[0, 0] == 7
'''
RECORD = (
    f"from clearhead.sandbox.child.recording import recorded\ncalls = recorded({TESTS!r}, 't.py', dict(globals()))\n"
)


def calls(program: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    chunks = [Chunk(program, "your program"), Chunk(RECORD, "record")]
    return json.loads(sandbox.run(chunks, preload=["torch"], want=[("calls", "")]).values["calls"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "def attend(q, k):\n    return (q @ k.T).softmax(-1)\n",
        "def attend(q, k):\n    w = torch.softmax(q @ k.T, -1)\n    return w @ k.new_ones(3, 3)\n",
        "class A:\n    def __call__(self, q, k):\n        return (q @ k.T).softmax(-1)\ndef attend(q, k):\n    return A()(q, k)\n",
    ],
    ids=["returned", "from its softmax", "through a class"],
)
def test_weights_are_found(body: str) -> None:
    made = calls("import torch\n" + body)
    assert list(made) == ["Three rows", "Wrong on purpose"]
    assert [made[title]["failed"] for title in made] == [False, True]
    [call] = made["Three rows"]["calls"]
    assert list(call["args"]) == ["q", "k"]
    weights = [grid["rows"] for grid in call["grids"] if grid["weights"]]
    assert weights
    assert all(abs(sum(row) - 1) < 0.01 for row in weights[-1])
    assert len(weights[-1]) == 3


def test_a_program_that_raises_is_recorded_up_to_there() -> None:
    made = calls("import torch\ndef attend(q, k):\n    raise ValueError('no')\n")
    assert made["Three rows"]["failed"]
    assert made["Three rows"]["calls"][0]["grids"] == []
