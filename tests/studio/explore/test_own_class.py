"""The end of Build: a class that passes the suite is MiniLM's layer; ours passes the same suite."""

import os
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.course import Item, Pack
from clearhead.errors import SandboxError
from clearhead.studio.explore import own_class
from clearhead.studio.lens import demo_model, model_list
from clearhead.studio.questions.question import ends_in_class
from studio import sample

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")

OURS = """
import clearhead

class MultiHeadAttention(clearhead.MultiheadAttention):
    def __init__(self, embed_dim, num_heads):
        super().__init__(embed_dim, num_heads, batch_first=True)

    def forward(self, query, key, value, attn_mask=None):
        return super().forward(query, key, value, attn_mask=attn_mask, average_attn_weights=False)
"""


@pytest.fixture(scope="module")
def pack() -> Pack:
    return sample.shipped_course()


@pytest.fixture(scope="module")
def last(pack: Pack) -> Item:
    return pack.items["write-the-class"]


def source(item: Item, role: str) -> str:
    program = item.first(role)
    assert program
    return program.source


@pytest.mark.slow
def test_one_item_ends_in_a_class_and_is_the_last_of_its_topic(pack: Pack, last: Item) -> None:
    assert [item.id for item in pack.items.values() if ends_in_class(item)] == [last.id]
    steps = [item for item in pack.items_of(last.topic) if item.kind == "code"]
    assert max(steps, key=lambda item: item.difficulty) == last


@pytest.mark.slow
def test_clearheads_own_layer_passes_the_learners_suite(last: Item) -> None:
    judged = sandbox.judge(OURS, source(last, "tests"), limits=sandbox.Limits(seconds=30), preload=("torch",))
    assert [test.title for test in judged.tests if not test.passed] == []
    assert len(judged.tests) >= 8


@pytest.mark.slow
def test_the_class_with_minilms_parameters_attends_as_minilm(last: Item) -> None:
    ran = own_class._run(source(last, "solution"), 3)
    assert ran.weights.shape[1] == 12
    assert ran.apart < 1e-5
    no_scale = next(one for one in last.role("mutant") if one.misconception == "no-scale")
    assert own_class._run(no_scale.source, 3).apart > 0.1


@pytest.mark.stress
def test_the_class_attends_as_the_chat_model_does(last: Item, monkeypatch: pytest.MonkeyPatch) -> None:
    models = Path(os.environ["CLEARHEAD_TEST_MODELS"])
    if not (models / model_list.CHAT / "clearhead.json").is_file():
        pytest.skip("the chat model is not on this machine: clearhead models fetch")
    monkeypatch.setenv("XDG_CACHE_HOME", str(models.parents[1]))
    ran = own_class._run(source(last, "solution"), 23, model="chat")
    assert ran.weights.shape[1] == 9
    assert ran.apart <= 2**-8  # the model computes in bfloat16
    for mutant in last.role("mutant"):
        if mutant.misconception == "no-scale":
            assert own_class._run(mutant.source, 23, model="chat").apart > 0.1


def test_what_is_drawn_is_what_the_class_gave(last: Item) -> None:
    ran = own_class._run(source(last, "solution"), 3)
    drawn = next(iter(own_class._as_reading(ran, 3).record.values())).to_dense()
    assert (drawn - ran.weights).abs().max() < 1e-5
    tokens = demo_model.reading(own_class.SENTENCE).tokens
    for (token, links), row in zip(own_class._strongest(ran, 7, tokens), ran.weights[0, 7], strict=True):
        assert token in tokens
        assert links[0][1] == pytest.approx(row.max().item())


def test_a_class_that_fails_there_is_shown_why() -> None:
    with pytest.raises(SandboxError, match="ZeroDivisionError"):
        own_class._run("class MultiHeadAttention:\n    def __init__(self, *_):\n        1 / 0\n", 0)
    with pytest.raises(SandboxError, match="the weights have shape"):
        own_class._run(
            "import torch\n\nclass MultiHeadAttention(torch.nn.Module):\n    def __init__(self, *_):\n"
            "        super().__init__()\n\n    def load_state_dict(self, *_):\n        pass\n\n"
            "    def forward(self, x, *_):\n        return x, torch.ones(1, 12, 2, 2)\n",
            0,
        )
