"""Attention written by hand: what is recorded is what multiplied the values, or the module is named."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import observe

B, H, L, D = 2, 3, 5, 7
E = H * D
CAUSAL = torch.ones(L, L).tril()
ALONE = torch.ones(L, L).index_fill(0, torch.tensor([2]), 0.0)  # query 2 may attend nothing


class Own(nn.Module):
    """A module whose whole forward is a function of (self, q, k, v), each (B, H, L, D); `keep` notes its weights."""

    def __init__(self, compute) -> None:
        super().__init__()
        self.compute, self.used = compute, None
        self.qkv = nn.Linear(E, 3 * E)
        self.mix, self.other, self.place = nn.Linear(H, H), nn.Linear(H, H), nn.Parameter(torch.randn(L, L, D))
        self.norm, self.router, self.softmax = nn.LayerNorm(H), nn.Linear(E, 2), nn.Softmax(dim=3)

    def keep(self, weights: Tensor) -> Tensor:
        self.used = weights.detach().clone()
        return weights

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(B, L, 3, H, D).permute(2, 0, 3, 1, 4)
        return self.compute(self, q, k, v)


class OwnAttention(Own):
    """The same, by a name that says so."""


class HeadsAttention(OwnAttention):
    num_heads = H


SEEN, MISSED = {}, {}


def seen(compute):
    SEEN[compute.__name__] = compute
    return compute


def missed(compute):
    MISSED[compute.__name__] = compute
    return compute


def heads_mixed(layer: nn.Module, table: Tensor) -> Tensor:
    return layer(table.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@seen
def scale_on_queries_and_a_softmax_module(m, q, k, v):
    return m.keep(m.softmax((q * 0.4) @ k.transpose(2, 3))) @ v


@seen
def einsum_of_a_list(m, q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    energy = torch.einsum("nqhd,nkhd->nhqk", [q, k]).masked_fill(CAUSAL == 0, float("-1e20"))
    return torch.einsum("nhql,nlhd->nqhd", [m.keep(torch.softmax(energy / E**0.5, dim=3)), v])


@seen
def einsum_with_dots(m, q, k, v):
    return torch.einsum("... i j, ... j d", m.keep(torch.einsum("...id,...jd->...ij", q, k).softmax(-1)), v)


@seen
def einsum_by_numbers(m, q, k, v):
    weights = torch.einsum(q, [0, 1, 2, 3], k, [0, 1, 4, 3], [0, 1, 2, 4]).softmax(-1)
    return torch.einsum(m.keep(weights), [0, 1, 2, 4], v, [0, 1, 4, 3], [0, 1, 2, 3])


@seen
def einsum_of_any_axes(m, q, k, v):
    q, k, v = (t.permute(2, 0, 1, 3) for t in (q, k, v))
    weights = torch.einsum("ibnd,jbnd->ijbn", q, k).softmax(1)
    m.keep(weights.permute(2, 3, 0, 1))
    return torch.einsum("ijbn,jbnd->ibnd", weights, v)


@seen
def heads_between_queries_and_keys(m, q, k, v):
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    weights = torch.einsum("bihd,bjhd->bihj", q, k).softmax(-1)
    m.keep(weights.transpose(1, 2))
    return torch.einsum("bihj,bjhd->bihd", weights, v)


@seen
def two_axes_by_tensordot(m, q, k, v):
    weights = torch.tensordot(q[0, 0], k[0, 0], dims=([1], [1])).softmax(-1)
    m.keep(weights[None, None])
    return torch.tensordot(weights, v[0, 0], dims=1)


@seen
def keys_times_queries(m, q, k, v):
    weights = (k @ q.mT).softmax(-2)
    m.keep(weights.mT)
    return weights.mT @ v


@seen
def values_first(m, q, k, v):
    return (v.mT @ m.keep((q @ k.mT).softmax(-1)).mT).mT


@seen
def half_precision_with_a_float32_softmax(m, q, k, v):
    q, k, v = (t.bfloat16() for t in (q, k, v))
    weights = torch.softmax(q @ k.mT, -1, dtype=torch.float32).bfloat16()
    m.keep(weights.float())
    return weights @ v


@seen
def exponentials_over_their_sum(m, q, k, v):
    logits = q @ k.mT
    weights = torch.exp(logits - logits.amax(-1, keepdim=True))
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@seen
def exponentials_in_place(m, q, k, v):
    logits = (q @ k.mT).masked_fill(CAUSAL == 0, -torch.inf).detach()
    logits.exp_()
    logits /= logits.sum(-1, keepdim=True)
    return m.keep(logits) @ v


@seen
def exponential_of_a_log_softmax(m, q, k, v):
    return m.keep(F.log_softmax(q @ k.mT, -1).exp()) @ v


@seen
def mask_after_softmax_normalised_again(m, q, k, v):
    weights = (q @ k.mT).softmax(-1) * CAUSAL
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@seen
def largest_weights_normalised_again(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    top, place = weights.topk(2, -1)
    weights = torch.zeros_like(weights).scatter(-1, place, top)
    return m.keep(F.normalize(weights, p=1, dim=-1)) @ v


@seen
def heads_mixed_before_the_softmax(m, q, k, v):
    return m.keep(heads_mixed(m.mix, q @ k.mT).softmax(-1)) @ v


@seen
def dropout_outside_training(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, training=False)) @ v


@seen
def a_router_beside(m, q, k, v):
    gate = m.router(v.transpose(1, 2).flatten(2)).softmax(-1)
    return (m.keep((q @ k.mT).softmax(-1)) @ v).transpose(1, 2).flatten(2) * gate[..., :1]


@seen
def values_changed_and_gated(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1)) @ (v.relu() * 2) * q.sigmoid()


@seen
def one_head_after_the_other(m, q, k, v):
    weights = m.keep((q @ k.mT).softmax(-1))
    return torch.cat([weights[:, head] @ v[:, head] for head in range(H)], -1)


@seen
def weights_used_twice(m, q, k, v):
    weights = m.keep((q @ k.mT).softmax(-1))
    return weights @ v + torch.einsum("bhij,ijd->bhid", weights, m.place)


@seen
def nothing_to_attend_is_zero(m, q, k, v):
    return m.keep((q @ k.mT).masked_fill(ALONE == 0, -torch.inf).softmax(-1).nan_to_num()) @ v


@seen
def nothing_to_attend_is_zeroed_later(m, q, k, v):
    weights = (q @ k.mT).masked_fill(ALONE == 0, torch.finfo().min).softmax(-1)
    return m.keep(weights.masked_fill(ALONE == 0, 0.0)) @ v


@seen
def one_key_head_by_matmul(m, q, k, v):
    return m.keep((q @ k[:, :1].mT).softmax(-1)) @ v[:, :1]


@seen
def one_key_head_by_einsum(m, q, k, v):
    return torch.einsum("bhij,bjd->bhid", m.keep(torch.einsum("bhid,bjd->bhij", q, k[:, 0]).softmax(-1)), v[:, 0])


@seen
def positions_by_another_product(m, q, k, v):
    return m.keep((q @ k.mT + torch.einsum("bhid,ijd->bhij", q, m.place)).softmax(-1)) @ v


@seen
def capped_logits(m, q, k, v):
    return m.keep((torch.tanh(q @ k.mT / 2) * 2).softmax(-1)) @ v


@missed
def mask_after_softmax(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) * CAUSAL) @ v


@missed
def mask_after_softmax_in_place(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    weights.mul_(CAUSAL)
    return m.keep(weights) @ v


@missed
def one_weight_overwritten(m, q, k, v):
    weights = (q @ k.mT).softmax(-1).detach()
    weights[:, :, :, 0] = 0
    return m.keep(weights) @ v


@missed
def overwritten_through_a_view(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    weights.view(B * H, L, L).mul_(CAUSAL)
    return m.keep(weights) @ v


@missed
def overwritten_as_an_output(m, q, k, v):
    weights = (q @ k.mT).softmax(-1).detach()
    torch.mul(weights, CAUSAL, out=weights)
    return m.keep(weights) @ v


@missed
def reattention(m, q, k, v):
    weights = torch.einsum("bhij,hg->bgij", (q @ k.mT).softmax(-1), m.mix.weight)
    return m.keep(heads_mixed(m.norm, weights)) @ v


@missed
def talking_heads(m, q, k, v):
    return m.keep(heads_mixed(m.other, heads_mixed(m.mix, q @ k.mT).softmax(-1))) @ v


@missed
def gated_weights(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) * q.sigmoid().mean(-1, keepdim=True)) @ v


@missed
def divided_weights(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) / 2) @ v


@missed
def squared_and_normalised(m, q, k, v):
    weights = (q @ k.mT).softmax(-1) ** 2
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@missed
def dropout_in_training(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, training=True)) @ v


@missed
def dropout_in_place(m, q, k, v):
    return m.keep(F.dropout((q @ k.mT).softmax(-1), 0.5, True, True)) @ v


@missed
def difference_of_two(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1) - 0.3 * (k @ q.mT).softmax(-1)) @ v


@missed
def two_steps_at_once(m, q, k, v):
    weights = (q @ k.mT).softmax(-1)
    return m.keep(weights @ weights) @ v


@missed
def used_from_the_other_side(m, q, k, v):
    return m.keep((q @ k.mT).softmax(-1).mT) @ v


@missed
def slots(m, q, k, v):
    weights = (q @ k.mT).softmax(-2) + 1e-3
    return m.keep(weights / weights.sum(-1, keepdim=True)) @ v


@missed
def one_more_than_the_sum(m, q, k, v):
    weights = (q @ k.mT).exp()
    return m.keep(weights / (1 + weights.sum(-1, keepdim=True))) @ v


@missed
def a_sink_dropped(m, q, k, v):
    logits = torch.cat([q @ k.mT, q.sum(-1, keepdim=True)], -1)
    return m.keep(logits.softmax(-1)[..., :-1]) @ v


@missed
def divided_later(m, q, k, v):
    weights = (q @ k.mT).exp()
    return (m.keep(weights) @ v) / weights.sum(-1, keepdim=True)


# Not attention by products alone, so that only a name tells that something was missed.
ONLY_BY_NAME = {}


def only_by_name(compute):
    ONLY_BY_NAME[compute.__name__] = compute
    return compute


@only_by_name
def no_values(m, q, k, v):
    return v + (q @ k.mT).softmax(-1).mean()


@only_by_name
def sigmoid(m, q, k, v):
    return (q @ k.mT).sigmoid() @ v


@only_by_name
def elementwise_values(m, q, k, v):
    return ((q @ k.mT).softmax(-1)[..., None] * v[:, :, None]).sum(-2)


@only_by_name
def additive(m, q, k, v):
    return torch.tanh(q[:, :, :, None] + k[:, :, None]).sum(-1).softmax(-1) @ v


X = torch.randn(B, L, E, generator=torch.Generator().manual_seed(1))


def run(model: nn.Module):
    """(record, whether the model gave the same as unobserved)."""
    torch.manual_seed(2)
    plain = model(X)
    torch.manual_seed(2)
    with observe(model) as record:
        out = model(X)
    return record, torch.equal(out, plain)


@pytest.mark.parametrize("kind", [Own, OwnAttention, HeadsAttention])
@pytest.mark.parametrize("compute", SEEN.values(), ids=SEEN)
def test_what_multiplied_the_values_is_recorded(compute, kind):
    torch.manual_seed(0)
    model = kind(compute)
    record, same = run(model)
    assert same
    assert record.missed == []
    assert list(record) == [""]
    close = 1e-2 if "half" in compute.__name__ else 1e-6
    torch.testing.assert_close(record[""].to_dense().float(), model.used, rtol=0, atol=close)


@pytest.mark.parametrize("kind", [Own, OwnAttention])
@pytest.mark.parametrize("compute", MISSED.values(), ids=MISSED)
def test_weights_that_are_no_softmax_are_named(compute, kind):
    torch.manual_seed(0)
    record, same = run(kind(compute))
    assert same
    assert len(record) == 0
    assert [item.name for item in record.missed] == [""]
    assert kind.__name__ in record.missed[0].reason


@pytest.mark.parametrize("edited", ["weights", "logits"])
def test_an_edit_that_no_torch_function_makes_is_named(edited):
    def edited_in_numpy(m, q, k, v):
        tables = {"logits": (logits := q @ k.mT), "weights": logits.softmax(-1)}
        tables[edited].detach().numpy()[..., 0] = 0
        return tables["weights"] @ v

    record, same = run(OwnAttention(edited_in_numpy))
    assert same
    assert len(record) == 0
    assert "overwrites its weights" in record.missed[0].reason


@pytest.mark.parametrize("compute", ONLY_BY_NAME.values(), ids=ONLY_BY_NAME)
def test_what_is_called_attention_and_is_not_one_softmax_is_named(compute):
    record, same = run(OwnAttention(compute))
    assert same
    assert len(record) == 0
    assert "computes its attention by itself" in record.missed[0].reason


def test_reasons_say_what_happened():
    said = {
        mask_after_softmax: r"between the softmax and the values \(mul\)",
        dropout_in_training: r"\(dropout\). Call model.eval\(\)",
        difference_of_two: "takes 2 softmaxes in one pass",
        used_from_the_other_side: "another axis than its softmax",
        a_sink_dropped: "a part of each row",
        divided_later: "divides by their sum later",
        sigmoid: r"no softmax \(sigmoid\)",
        additive: "no product of queries and keys",
        no_values: "multiplies no values",
    }
    for compute, words in said.items():
        record, _ = run(OwnAttention(compute))
        with pytest.raises(KeyError, match=words):
            record[""]


def test_large_weights_are_compared_on_a_sample_of_rows():
    length = 1100  # more than used.WHOLE weights

    class LateAttention(nn.Module):
        def forward(self, x: Tensor, late: bool) -> Tensor:
            weights = (x @ x.mT).softmax(-1)
            if late:
                weights = weights * torch.ones(length, length).tril()
            return weights @ x

    x = torch.randn(1, 1, length, 3)
    model = LateAttention()
    with observe(model) as record:
        model(x, late=False)
    torch.testing.assert_close(record[""][0, 0, 1090], (x[0, 0, 1090] @ x[0, 0].T).softmax(-1), rtol=0, atol=1e-6)
    with observe(model) as record:
        model(x, late=True)
    assert len(record) == 0
    assert len(record.missed) == 1


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(E, D, bias=False) for _ in range(3))

    def look(self, x: Tensor) -> Tensor:
        logits = self.query(x) @ self.key(x).mT / D**0.5
        self.used = logits.masked_fill(CAUSAL == 0, -torch.inf).softmax(-1)
        return self.used @ self.value(x)

    forward = look


class MultiHeadAttention(nn.Module):
    def __init__(self, kind: type[nn.Module] = Head) -> None:
        super().__init__()
        self.heads = nn.ModuleList(kind() for _ in range(H))
        self.proj = nn.Linear(H * D, E)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(torch.cat([head(x) for head in self.heads], -1))


def test_heads_in_a_list_have_a_matrix_each():
    model = nn.Sequential(MultiHeadAttention(), nn.ReLU(), MultiHeadAttention())
    with observe(model) as record:
        model(X)
    assert list(record) == [f"{layer}.heads.{head}" for layer in (0, 2) for head in range(H)]
    assert record.missed == []
    for name, matrix in record.items():
        torch.testing.assert_close(matrix.to_dense()[:, 0], model.get_submodule(name).used, rtol=0, atol=1e-6)
    with observe(model, layers=[-1]) as record:
        model(X)
    assert list(record) == [f"2.heads.{head}" for head in range(H)]


def test_a_module_that_only_makes_the_weights():
    class Weights(nn.Module):
        def forward(self, q: Tensor, k: Tensor) -> Tensor:
            return (q @ k.mT).softmax(-1)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = Weights()

        def forward(self, x: Tensor) -> Tensor:
            return self.weights(x / D, x) @ x

    model = Outer()
    with observe(model) as record:
        model(X)
    assert list(record) == [""]
    torch.testing.assert_close(record[""].to_dense()[:, 0], (X @ X.mT / D).softmax(-1), rtol=0, atol=1e-6)


class AttentionOutput(nn.Module):
    """A layer with an attention's name: positions are not mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.norm = nn.Linear(E, E), nn.LayerNorm(E)
        self.register_buffer("gain", torch.ones(E))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.norm(F.dropout(F.silu(self.dense(x)) * self.gain, 0.1, self.training) + residual)


class Block(nn.Module):
    def __init__(self, inner: nn.Module, outer: nn.Module) -> None:
        super().__init__()
        self.inner, self.outer = inner, outer

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x), x)


def test_a_layer_that_is_called_attention_was_not_missed():
    model = Block(MultiHeadAttention(), AttentionOutput())
    with observe(model) as record:
        model(X)
    assert len(record) == H
    assert record.missed == []


class ScriptedAttention(nn.Module):
    """What it computes inside is seen by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = torch.jit.script(_mixed)
        self.dense = nn.Linear(E, E)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.dense(self.mixed(x)) + residual


def _mixed(x: Tensor) -> Tensor:
    return torch.softmax(x @ x.transpose(1, 2), -1) @ x


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_attention_inside_a_scripted_function_is_named():
    model = Block(MultiHeadAttention(), ScriptedAttention())
    with observe(model) as record:
        model(X)
    assert [item.name for item in record.missed] == ["outer"]
