"""Modules that are no longer Python: TorchScript's are named or refused, those of `torch.export` are recorded."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import clearhead
from clearhead.errors import OptionError

L, E, H = 5, 14, 2
X = torch.randn(3, L, E, generator=torch.Generator().manual_seed(7))

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Own(nn.Module):
    """Attention of one head, by a product and a softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(E, E)

    def forward(self, x: Tensor) -> Tensor:
        query = self.project(x)
        return torch.softmax(query @ x.transpose(1, 2), -1) @ x


class Fused(nn.Module):
    """Attention of several heads, by torch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(E, 3 * E)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, H, -1)).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)


class Around(nn.Module):
    """A module with another inside, beside torch's class."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, nn.MultiheadAttention(E, H, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        inside = self.encoder(x)
        return self.decoder(inside, inside, inside)[0]


SCRIPTED = {
    "script": lambda: torch.jit.script(Own()),
    "trace": lambda: torch.jit.trace(Own(), X),
    "freeze": lambda: torch.jit.freeze(torch.jit.script(Own()).eval()),
    "sdpa": lambda: torch.jit.script(nn.TransformerEncoderLayer(E, H, 4, batch_first=True).eval()),
}


@pytest.mark.parametrize("how", SCRIPTED)
@pytest.mark.parametrize("values", [False, True])
def test_a_module_that_torchscript_compiled_is_named(how: str, values: bool):
    model = Around(SCRIPTED[how]())
    plain = model(X)
    with clearhead.observe(model, values=values) as record:
        out = model(X)
    assert torch.equal(out, plain)
    assert list(record) == ["decoder"]
    (missed,) = record.missed
    assert missed.name == "encoder"
    assert "compiled by TorchScript" in missed.reason


def test_one_inside_a_list_is_named_if_it_is_requested():
    model = nn.ModuleList([nn.Sequential(torch.jit.script(Own())), nn.MultiheadAttention(E, H)])
    model = nn.Sequential(model[0], Around(nn.Identity()))
    with clearhead.observe(model) as record:
        model(X)
    assert [item.name for item in record.missed] == ["0.0"]
    with clearhead.observe(model, layers=["1.decoder"]) as record:
        model(X)
    assert record.missed == []


def test_one_without_attention_is_not_named():
    model = Around(torch.jit.script(nn.Sequential(nn.Linear(E, E), nn.ReLU())))
    with clearhead.observe(model) as record:
        model(X)
    assert record.missed == []


def test_heads_beside_it_can_be_edited():
    model = Around(torch.jit.script(Own()))
    with clearhead.intervene(model, {("decoder", h): "zero" for h in range(H)}):
        out = model(X)
    torch.testing.assert_close(out, model.decoder.out_proj.bias.expand_as(out))


@pytest.mark.parametrize("how", SCRIPTED)
def test_a_model_that_is_compiled_whole_is_refused(how: str):
    model = SCRIPTED[how]()
    for begin in (lambda: clearhead.observe(model), lambda: clearhead.intervene(model, {(0, 0): "zero"})):
        with pytest.raises(OptionError, match=r"given to torch\.jit\.script"), begin():
            model(X)


@pytest.mark.parametrize("kind", [Own, Fused, lambda: Around(nn.Identity())])
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec:FutureWarning")  # torch's own
@pytest.mark.parametrize("decomposed", [False, True])
def test_an_exported_module_is_recorded(kind, decomposed: bool):
    model = kind().eval()
    program = torch.export.export(model, (X,))
    exported = (program.run_decompositions() if decomposed else program).module()
    with torch.no_grad(), clearhead.observe(model) as record:
        model(X)
    with torch.no_grad():
        plain = exported(X)
        with clearhead.observe(exported) as found:
            out = exported(X)
    assert torch.equal(out, plain)
    assert found.missed == []
    (expected,), (matrix,) = record.values(), found.values()
    torch.testing.assert_close(matrix.to_dense(), expected.to_dense(), rtol=0, atol=2e-6)
