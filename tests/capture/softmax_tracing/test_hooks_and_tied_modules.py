"""Own attention whose parts have hooks, and one module used at several places: what multiplied the values, or named."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import observe

from .recorded_forms import B, D, E, H, L

X = torch.randn(B, L, E, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Attention whose softmax and dropout are modules; `used` has the weights of each call."""

    def __init__(self, product: str = "matmul") -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(E, E) for _ in range(3))
        self.softmax, self.drop, self.product = nn.Softmax(-1), nn.Dropout(0.0), product
        self.used: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (H, D)).transpose(1, 2) for part in (self.q, self.k, self.v))
        if self.product == "sdpa":
            self.used.append((q @ k.mT / D**0.5).softmax(-1))
            z = F.scaled_dot_product_attention(q, k, v)
        elif self.product == "einsum":
            self.used.append(self.drop(self.softmax(torch.einsum("bhid,bhjd->bhij", q, k) / D**0.5)))
            z = torch.einsum("bhij,bhjd->bhid", self.used[-1], v)
        else:
            self.used.append(self.drop(self.softmax(q @ k.mT / D**0.5)))
            z = self.used[-1] @ v
        return z.transpose(1, 2).flatten(2)


def observed(model: nn.Module, modules: list[Attention]):
    with torch.no_grad():
        plain = model(X)
        for module in modules:
            module.used.clear()
        with observe(model) as record:
            assert torch.equal(model(X), plain)
    return record


def agree(record, name: str, used: list[Tensor]) -> None:
    for matrix, weights in zip(record.calls(name), used, strict=True):
        torch.testing.assert_close(matrix.to_dense(), weights, rtol=0, atol=1e-6)


KEPT = {
    "queries scaled": ("q", lambda _, __, out: out * 2),
    "keys reversed": ("k", lambda _, __, out: out.flip(1)),
    "values replaced": ("v", lambda _, __, out: torch.ones_like(out)),
    "its output shifted": ("", lambda _, __, out: out + 1),
    "weights copied": ("softmax", lambda _, __, out: out.clone()),
}
CHANGED = {
    "small weights dropped": ("softmax", lambda _, __, out: torch.where(out > 0.15, out, 0.0)),
    "weights reversed": ("drop", lambda _, __, out: out.flip(-1)),
    "weights halved in place": ("softmax", lambda _, __, out: out.mul_(0.5)),
    "weights replaced": ("softmax", lambda _, __, out: torch.full_like(out, 1 / L)),
}


@pytest.mark.parametrize("product", ["matmul", "einsum", "sdpa"])
@pytest.mark.parametrize("change", KEPT)
def test_a_hook_before_or_after_the_weights_is_in_what_is_recorded(change, product):
    torch.manual_seed(0)
    model, (part, hook) = nn.Sequential(Attention(product), Attention(product)), KEPT[change]
    model[0].get_submodule(part).register_forward_hook(hook)
    record = observed(model, list(model))
    assert record.missed == []
    for name in "01":
        agree(record, name, model[int(name)].used)


@pytest.mark.parametrize("product", ["matmul", "einsum"])
@pytest.mark.parametrize("change", CHANGED)
def test_a_hook_that_changes_the_weights_leaves_its_module_named(change, product):
    torch.manual_seed(0)
    model, (part, hook) = nn.Sequential(Attention(product), Attention(product)), CHANGED[change]
    model[0].get_submodule(part).register_forward_hook(hook)
    record = observed(model, list(model))
    assert list(record) == ["1"]
    agree(record, "1", model[1].used)
    assert [item.name for item in record.missed] == ["0"]
    assert "Attention" in record.missed[0].reason


class TwoNames(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.first = self.second = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) + x)


class TwoLengths(nn.Module):
    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.only = attention

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x[:, :3]).mean() + self.only(x)


TIED = {
    "in a list": lambda attention: nn.Sequential(attention, nn.Tanh(), attention),
    "by two names": TwoNames,
    "on two lengths": TwoLengths,
}


@pytest.mark.parametrize("product", ["matmul", "einsum", "sdpa"])
@pytest.mark.parametrize("form", TIED)
def test_each_use_of_a_tied_module_is_a_call_of_its_first_name(form, product):
    torch.manual_seed(0)
    attention = Attention(product)
    record = observed(TIED[form](attention), [attention])
    assert record.missed == []
    assert list(record) == [{"in a list": "0", "by two names": "first", "on two lengths": "only"}[form]]
    assert len(attention.used) == 2
    agree(record, next(iter(record)), attention.used)
