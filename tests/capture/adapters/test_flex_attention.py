"""Flex attention, called directly or through Hugging Face's interface: recorded exactly, or missed with a reason."""

import pytest
import torch
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from clearhead.capture import observe

L, S = 7, 11
SLOPES = torch.tensor([0.5, 0.25, 0.1, 0.02])
pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def still():
    with torch.no_grad():
        yield


class Flexible(nn.Module):
    def __init__(self, **options) -> None:
        super().__init__()
        make = torch.Generator().manual_seed(3)
        self.q = torch.randn(2, 4, L, 5, generator=make)
        self.k, self.v = (torch.randn(2, 2, S, 5, generator=make) for _ in range(2))
        self.options = options

    def forward(self):
        return flex_attention(self.q, self.k, self.v, enable_gqa=True, **self.options)

    def weights(self, change=lambda logits: logits, scale: float = 5**-0.5) -> torch.Tensor:
        return torch.softmax(change(self.q @ self.k.repeat_interleave(2, 1).mT * scale), -1).nan_to_num(0.0)


def block(rule, heads=None):
    return create_block_mask(rule, None, heads, L, S, device="cpu")


ROW, COL = torch.arange(L)[:, None], torch.arange(S)
LATER = COL > ROW
# Block masks are made by the test: the first one imports the compiler, which takes seconds.
KINDS = {
    "plain": ({}, lambda x: x),
    "scale": ({"scale": 0.3}, None),
    "causal block mask": (
        {"block_mask": lambda: block(lambda b, h, i, j: i >= j)},
        lambda x: x.masked_fill(LATER, -torch.inf),
    ),
    "a mask a head": (
        {"block_mask": lambda: block(lambda b, h, i, j: j <= i + h, 4)},
        lambda x: x.masked_fill(ROW + torch.arange(4)[:, None, None] < COL, -torch.inf),
    ),
    "rows that see nothing": (
        {"block_mask": lambda: block(lambda b, h, i, j: i % 3 > 0)},
        lambda x: x.masked_fill((torch.arange(L) % 3 == 0)[:, None], -torch.inf),
    ),
    "alibi": (
        {"score_mod": lambda s, b, h, i, j: s + SLOPES[h] * (j - i)},
        lambda x: x + SLOPES[:, None, None] * (COL - ROW),
    ),
    "causal score": (
        {"score_mod": lambda s, b, h, i, j: torch.where(i >= j, s, -torch.inf)},
        lambda x: x.masked_fill(LATER, -torch.inf),
    ),
    "softcap and bias": (
        {"score_mod": lambda s, b, h, i, j: 0.7 * torch.tanh(s / 0.7) + 0.1 * h * j},
        lambda x: 0.7 * torch.tanh(x / 0.7) + 0.1 * torch.arange(4)[:, None, None] * COL,
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_direct_call(kind: str):
    given, change = KINDS[kind]
    options = {name: value() if name == "block_mask" else value for name, value in given.items()}
    model = Flexible(**options)
    plain = model()
    with observe(model) as record:
        assert torch.equal(model(), plain)
    assert record.missed == []
    exact = model.weights(change) if change is not None else model.weights(scale=0.3)
    torch.testing.assert_close(record[""].to_dense(), exact, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "score_mod",
    [
        lambda s, b, h, i, j: s * 2,
        lambda s, b, h, i, j: s * (1 + 0.1 * h),
        lambda s, b, h, i, j: torch.relu(s),
        lambda s, b, h, i, j: (1.0 + h) * torch.tanh(s / (1.0 + h)),
    ],
    ids=["doubled", "a scale a head", "relu", "a cap a head"],
)
def test_a_score_function_of_another_kind_is_named(score_mod):
    model = Flexible(score_mod=score_mod)
    plain = model()
    with observe(model) as record:
        assert torch.equal(model(), plain)
    assert len(record) == 0
    assert "score_mod" in record.missed[0].reason


def test_a_causal_block_mask_keeps_no_table():
    model = Flexible(block_mask=block(lambda b, h, i, j: i >= j))
    with observe(model) as record:
        model()
    logits = record[""]._logits
    assert logits.attention.reach == (None, 0)
    assert logits.attention.allow is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "stance", ["force_eager", pytest.param("default", marks=pytest.mark.stress, id="compiled: two minutes")]
)
def test_behind_hugging_faces_interface(stance: str):
    from transformers import LlamaConfig, LlamaModel

    from ..families import GROUPED, left

    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**GROUPED)).eval()
    model.set_attn_implementation("eager")
    exact = model(**left(), output_attentions=True).attentions
    model.set_attn_implementation("flex_attention")
    with torch.compiler.set_stance(stance):
        plain = model(**left()).last_hidden_state
        with observe(model) as record:
            assert torch.equal(model(**left()).last_hidden_state, plain)
    assert record.missed == []
    assert len(record) == 2
    for matrix, weights in zip(record.values(), exact, strict=True):
        used = (matrix.lse > -torch.inf)[..., None]
        torch.testing.assert_close(matrix.to_dense(), weights * used, rtol=0, atol=1e-6)
