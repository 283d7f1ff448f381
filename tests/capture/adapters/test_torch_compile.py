"""A compiled model runs eagerly while it is observed, and compiled again afterwards. Tests use the backend "eager"."""

import threading

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fresh
from clearhead.capture import observe


@pytest.fixture(autouse=True)
def still():
    with torch.no_grad():
        yield
    assert torch._dynamo.eval_frame._stance.stance == "default"


class Attention(nn.Module):
    """timm's attention, fused or not, which counts how often its Python code runs."""

    def __init__(self, fused: bool = True) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)
        self.fused, self.ran = fused, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            x = F.scaled_dot_product_attention(q, k, v)
        else:
            attn = (q * 3**-0.5) @ k.transpose(-2, -1)
            x = attn.softmax(dim=-1) @ v
        return self.proj(x.transpose(1, 2).reshape(B, N, C))


def vit(fused: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Attention(fused), nn.Tanh(), Attention(fused)).eval()


X = torch.randn(2, 7, 12, generator=torch.Generator().manual_seed(1))


def dense(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    q, k, _ = model.qkv(x).reshape(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
    return torch.softmax(q @ k.mT * 3**-0.5, -1)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("how", ["not", "wrapped", "in place", "a part"])
def test_compiled_or_not(how: str, fused: bool):
    model = vit(fused)
    written = model(X)
    if how == "wrapped":
        model = torch.compile(model, backend="eager")
    elif how == "in place":
        model.compile(backend="eager")
    elif how == "a part":
        model[2].forward = torch.compile(model[2].forward, backend="eager")
    before = model(X)
    with observe(model) as record:
        out = model(X)
    torch.testing.assert_close(out, written)
    assert torch.equal(model(X), before)
    assert record.missed == []
    inner = getattr(model, "_orig_mod", model)
    assert [name.removeprefix("_orig_mod.") for name in record] == ["0", "2"]
    for name, x in (("0", X), ("2", inner[:2](X))):
        matrix = next(found for key, found in record.items() if key.endswith(name))
        torch.testing.assert_close(matrix.to_dense(), dense(inner[int(name)], x), rtol=0, atol=1e-6)


def test_a_compiled_model_of_hugging_faces_interface():
    from transformers import LlamaConfig, LlamaModel

    from ..families import GROUPED, left

    torch.manual_seed(0)
    model = LlamaModel(LlamaConfig(**GROUPED)).eval()
    with observe(model) as exact:
        written = model(**left()).last_hidden_state
    compiled = torch.compile(model, backend="eager")
    with observe(compiled) as record:
        out = compiled(**left()).last_hidden_state
    torch.testing.assert_close(out, written)
    assert record.missed == []
    for ours, theirs in zip(record.values(), exact.values(), strict=True):
        torch.testing.assert_close(ours.to_dense(), theirs.to_dense(), rtol=0, atol=1e-6)


def test_two_observers_that_end_in_the_order_they_began():
    """The setting is global to the process: the observer that ends first must not restore it too early."""
    model, inside, done = torch.compile(vit(True), backend="eager"), threading.Event(), threading.Event()

    def second() -> None:
        with torch.no_grad(), observe(model):
            inside.set()
            done.wait()
            model(X)

    thread = threading.Thread(target=second)
    with observe(model):
        model(X)
        thread.start()
        inside.wait()
    done.set()
    thread.join()
    assert torch._dynamo.eval_frame._stance.stance == "default"


LATE = """
import sys
import torch
from torch import nn
from clearhead.capture import observe

class Attention(nn.Module):
    def forward(self, q):
        {forward}

q = torch.randn(1, 2, 5, 8)
known = "torch._dynamo" in sys.modules
with torch.no_grad(), observe(model := Attention()) as record:
    out = model(q)
A = record[""].to_dense()
exact = torch.softmax(q @ q.mT * {scale}, -1)
print(known, record.missed, bool(((A - exact).abs() < 1e-6).all()), bool(((out - exact @ q).abs() < 1e-6).all()))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("forward", "scale"),
    [
        ("from torch.nn.attention.flex_attention import flex_attention as flex; return flex(q, q, q)", 8**-0.5),
        ("return torch.compile(lambda q: (q @ q.mT).softmax(-1) @ q, backend='eager')(q)", 1.0),
    ],
    ids=["flex attention", "torch.compile"],
)
def test_a_model_that_imports_the_compiler_while_it_is_observed(forward: str, scale: float):
    assert fresh.answer(LATE.format(forward=forward, scale=scale)) == "False [] True True"
