"""Batch and heads are told apart in any order of axes, in modules that have no `num_heads`, and where B equals H."""

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import observe

SIZES = {"different": (2, 3), "equal": (3, 3), "one of a batch": (1, 3), "one head": (3, 1)}
L, D = 5, 7


class Own(nn.Module):
    """Attention by a function of (self, q, k, v), each (B, H, L, D); it sets `used`, (B, H, L, S)."""

    def __init__(self, compute, heads: int) -> None:
        super().__init__()
        self.compute, self.parts = compute, heads  # no attribute is called heads
        self.qkv = nn.Linear(heads * D, 3 * heads * D)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.parts, D).permute(2, 0, 3, 1, 4)
        self.used = torch.softmax(q @ k.mT, -1)
        return self.compute(self, q, k, v)


def check(model: nn.Module, *inputs: Tensor) -> None:
    plain = model(*inputs)
    with observe(model) as record:
        out = model(*inputs)
    assert torch.equal(out, plain)
    assert record.missed == []
    (name,) = record
    found = record[name].to_dense()
    assert found.shape == model.used.shape
    torch.testing.assert_close(found, model.used, rtol=0, atol=2e-6)


def inputs(batch: int, heads: int) -> Tensor:
    return torch.randn(batch, L, heads * D, generator=torch.Generator().manual_seed(5))


def ordered(t: Tensor, letters: str, order: str) -> Tensor:
    return t.permute([letters.index(a) for a in order])


def by_einsum(query: str, key: str, logits: str):
    def compute(m, q, k, v):
        table = torch.einsum(f"{query},{key}->{logits}", ordered(q, "bhid", query), ordered(k, "bhjd", key))
        weights = table.softmax(logits.index("j"))
        return torch.einsum(f"{logits},bhjd->bihd", weights, v)

    return compute


ORDERS = [["".join(order) for order in permutations(letters)] for letters in ("bhid", "bhjd", "bhij")]
DRAWN = [(ORDERS[0][7 * n % 24], ORDERS[1][11 * n % 24], logits) for n, logits in enumerate(ORDERS[2])]


@pytest.mark.parametrize("sizes", [(2, 3), (3, 3)], ids=["different", "equal"])
@pytest.mark.parametrize("letters", DRAWN, ids="-".join)
def test_einsum_in_any_order(letters, sizes):
    torch.manual_seed(0)
    check(Own(by_einsum(*letters), sizes[1]), inputs(*sizes))


def matmul_heads_first(m, q, k, v):
    q, k, v = (t.transpose(0, 1) for t in (q, k, v))
    return ((q @ k.mT).softmax(-1) @ v).permute(1, 2, 0, 3)


def matmul_with_an_axis_more(m, q, k, v):
    return ((q[:, None] @ k[:, None].mT).softmax(-1) @ v[:, None])[:, 0]


def bmm_batch_first(m, q, k, v):
    shape = q.shape
    q, k, v = (t.flatten(0, 1) for t in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(shape)


def bmm_heads_first(m, q, k, v):
    shape = q.transpose(0, 1).shape
    q, k, v = (t.transpose(0, 1).reshape(-1, L, D) for t in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v).view(shape).transpose(0, 1)


def bmm_and_a_view_for_the_softmax(m, q, k, v):
    merged = [t.transpose(0, 1).reshape(-1, L, D) for t in (q, k, v)]
    weights = torch.bmm(merged[0], merged[1].mT).view(m.parts, -1, L, L).softmax(-1)
    return torch.bmm(weights.view(-1, L, L), merged[2])


def heads_split_by_chunks(m, q, k, v):
    q, k, v = (torch.cat(t.transpose(1, 2).flatten(2).chunk(m.parts, -1)) for t in (q, k, v))
    return torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)


def one_key_head(m, q, k, v):
    m.used = torch.softmax(q @ k[:, :1].mT, -1)
    weights = torch.einsum("bhid,bjd->hibj", q, k[:, 0]).softmax(-1)
    return torch.einsum("hibj,bjd->bhid", weights, v[:, 0])


def one_key_head_with_queries_before_heads(m, q, k, v):
    m.used = torch.softmax(q @ k[:, :1].mT, -1)
    weights = torch.einsum("bhid,bjd->ijhb", q, k[:, 0]).softmax(1)
    return torch.einsum("ijhb,bjd->bhid", weights, v[:, 0])


def rotated_by_halves(m, q, k, v):
    def turned(t):
        return t * 0.8 + torch.cat([-t[..., 3:], t[..., :3]], -1) * 0.6

    q, k = turned(q), turned(k)
    m.used = torch.softmax(q @ k.mT, -1)
    return by_einsum("bhid", "bhjd", "hbij")(m, q, k, v)


def rotated_by_complex_numbers(m, q, k, v):
    def turned(t):
        pairs = torch.view_as_complex(t[..., :6].reshape(*t.shape[:-1], 3, 2).contiguous())
        return torch.view_as_real(pairs * 1j).flatten(-2)

    q, k = turned(q), turned(k)
    m.used = torch.softmax(q @ k.mT, -1)
    return by_einsum("bhid", "bhjd", "hbij")(m, q, k, v)


def gated_and_renamed(m, q, k, v):
    return matmul_heads_first(m, q, k, v) * q.sigmoid().transpose(1, 2)


def mask_after_softmax_renormalised(m, q, k, v):
    mask = torch.ones(L, L).tril()
    m.used = m.used * mask / (m.used * mask).sum(-1, keepdim=True)
    weights = torch.einsum("bhid,bhjd->hbij", q, k).softmax(-1) * mask
    return (weights / weights.sum(-1, keepdim=True)) @ v.transpose(0, 1)


def talking_before_the_softmax(m, q, k, v):
    mix = torch.linspace(0, 1, m.parts**2).view(m.parts, m.parts)
    m.used = torch.einsum("bhij,hg->bgij", q @ k.mT, mix).softmax(-1)
    logits = torch.einsum("bhid,bhjd->ijbh", q, k) @ mix
    return torch.einsum("ijbh,bhjd->bhid", logits.softmax(1), v)


COMPUTES = [
    matmul_heads_first, matmul_with_an_axis_more, bmm_batch_first, bmm_heads_first, bmm_and_a_view_for_the_softmax,
    heads_split_by_chunks, one_key_head, one_key_head_with_queries_before_heads, rotated_by_halves,
    rotated_by_complex_numbers, gated_and_renamed, mask_after_softmax_renormalised, talking_before_the_softmax,
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("compute", COMPUTES, ids=lambda compute: compute.__name__)
def test_matmul_bmm_and_what_changes_the_weights(compute, sizes):
    torch.manual_seed(0)
    check(Own(compute, sizes[1]), inputs(*sizes))


class HeadsBeforeProjection(nn.Module):
    """Splits its input into heads and projects each by the same layer, as many courses write it."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.parts, self.q, self.k = heads, nn.Linear(D, D), nn.Linear(D, D)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), -1, self.parts, D)
        q, k = self.q(x), self.k(x)
        self.used = torch.einsum("bihd,bjhd->bhij", q, k).softmax(-1)
        weights = torch.einsum("bihd,bjhd->hbij", q, k).softmax(-1)
        return torch.einsum("hbij,bjhd->bihd", weights, x)


class WeightsOfEachHead(nn.Module):
    """A weight (H, E, D) and einsum instead of a linear layer."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.q, self.k = (nn.Parameter(torch.randn(heads, heads * D, D) / 9) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k = torch.einsum("ble,hed->hbld", x, self.q), x[:, None] @ self.k
        self.used = torch.einsum("hbid,bhjd->bhij", q, k).softmax(-1)
        return torch.einsum("hbij,bje->bhie", torch.einsum("hbid,bhjd->hbij", q, k).softmax(-1), x)


class OfPictures(nn.Module):
    """Heads of the channels that a convolution gives."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.parts, self.qk = heads, nn.Conv2d(heads * D, 2 * heads * D, 1)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.mT.unflatten(2, (1, L))  # (B, C, 1, L)
        q, k = self.qk(pixels).flatten(2).unflatten(1, (2, self.parts, D)).mT.unbind(1)
        self.used = (q @ k.mT).softmax(-1)
        return torch.einsum(
            "hbij,bjhd->bihd", torch.einsum("bhid,bhjd->hbij", q, k).softmax(-1), x.unflatten(2, (-1, D))
        )


class SequenceFirst(nn.Module):
    """Axes (L, B, E), as torch's own module has them."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.parts, self.qk = heads, nn.Linear(heads * D, 2 * heads * D)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1).contiguous()
        q, k = self.qk(x).view(L, -1, 2, self.parts, D).unbind(2)
        self.used = torch.einsum("ibhd,jbhd->bhij", q, k).softmax(-1)
        weights = torch.bmm(*(t.reshape(L, -1, D).permute(p) for t, p in ((q, (1, 0, 2)), (k, (1, 2, 0))))).softmax(-1)
        return torch.bmm(weights, x.reshape(L, -1, D).transpose(0, 1))


class MergedInAView(nn.Module):
    """The same with heads and batch merged at once, in a view of what a layer gives."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.parts, self.q, self.k = heads, nn.Linear(heads * D, heads * D), nn.Linear(heads * D, heads * D)

    def forward(self, x: Tensor) -> Tensor:
        q, k = (layer(x.transpose(0, 1)).view(L, -1, D).transpose(0, 1) for layer in (self.q, self.k))
        weights = torch.bmm(q, k.mT).softmax(-1)
        self.used = weights.view(-1, self.parts, L, L)
        return torch.bmm(weights, k)


class HeadsBetweenQueries(nn.Module):
    """One key head; the queries of all heads in turn along one axis."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.parts, self.q, self.k = heads, nn.Linear(heads * D, heads * D), nn.Linear(heads * D, D)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.q(x).view(len(x), -1, D), self.k(x)
        weights = torch.bmm(q, k.mT).softmax(-1)
        self.used = weights.view(-1, L, self.parts, L).transpose(1, 2)
        return torch.bmm(weights, k)


class GatedWindows(nn.Module):
    """Windows of unknown origin, times a gate whose positions are known: the gate tells nothing of the windows."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.gate, self.attention = nn.Linear(heads * D, heads * D), Own(matmul_heads_first, heads)

    def forward(self, x: Tensor) -> Tensor:
        windows = torch.from_numpy(torch.stack([x, -x], 1).numpy())
        out = self.attention((windows * self.gate(x.mean(1))[:, None, None]).flatten(0, 1))
        self.used = self.attention.used
        return out


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize(
    "kind",
    [
        GatedWindows, HeadsBeforeProjection, WeightsOfEachHead, OfPictures, SequenceFirst, MergedInAView,
        HeadsBetweenQueries,
    ],
)  # fmt: skip
def test_heads_made_in_other_ways(kind, sizes):
    torch.manual_seed(0)
    check(kind(sizes[1]), inputs(*sizes))


class Given(nn.Module):
    """Queries and keys of four axes come from outside; nothing tells which is the batch but their order."""

    def __init__(self, logits: str) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        self.used = (q @ k.mT).softmax(-1)
        weights = torch.einsum(f"bhid,bhjd->{self.logits}", q, k).softmax(-1)
        return torch.einsum(f"{self.logits},bhjd->bhid", weights, k)


def test_what_nothing_tells_is_named():
    q, k = torch.randn(2, 2, 3, L, D).unbind()
    check(Given("bhij"), q, k)
    model = Given("hbij")
    with observe(model) as record:
        model(q, k)
    assert len(record) == 0
    with pytest.raises(KeyError, match="nothing tells the batch from the heads"):
        record[""]


class MergedOutside(nn.Module):
    """Batch and heads are merged in numbers whose origin is unknown."""

    def forward(self, x: Tensor) -> Tensor:
        heads = torch.from_numpy(x.reshape(len(x), L, -1, D).transpose(1, 2).flatten(0, 1).numpy())
        return torch.bmm(torch.bmm(heads, heads.mT).softmax(-1), heads)


def test_merged_heads_of_unknown_origin_are_named():
    model = MergedOutside()
    with observe(model) as record:
        model(inputs(2, 3))
    assert len(record) == 0
    with pytest.raises(KeyError, match="axes of sizes 6 beside its queries and keys, and nothing tells"):
        record[""]


class ShiftedWindow(nn.Module):
    """One window over a padded picture that is rolled, so that padding comes first: Swin on a small picture."""

    def __init__(self, pad) -> None:
        super().__init__()
        self.project, self.pad = nn.Linear(6, 18), pad

    def forward(self, x: Tensor) -> Tensor:
        windows = torch.roll(self.pad(x), (-3, -3), (1, 2)).flatten(1, 2)
        q, k, v = self.project(windows).view(len(x), -1, 3, 3, 2).permute(2, 0, 3, 1, 4)
        logits = (q @ k.mT).view(len(x), 1, 3, 25, 25) + torch.zeros(1, 1, 1, 25, 25)
        self.used = torch.softmax(logits.view(-1, 3, 25, 25), -1)
        return (self.used @ v).transpose(1, 2).flatten(2)


@pytest.mark.parametrize(
    "pad",
    [
        lambda x: F.pad(x, (0, 0, 0, 2, 0, 2)),
        lambda x: F.pad(x, (0, 0, 0, 2, 0, 2), "constant", 3.0),
        lambda x: F.pad(x, (0, 0, 0, 2, 0, 2), value=1.0),
        lambda x: F.pad(x.permute(0, 3, 1, 2), (0, 2, 0, 2), mode="replicate").permute(0, 2, 3, 1),
    ],
)
def test_padding_belongs_to_no_entry_of_the_batch(pad):
    """Padding of two entries of a batch looked like one position, and the batch like heads."""
    layer = nn.Sequential(nn.Conv2d(2, 6, 1), nn.Flatten(2))
    picture = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(3))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.window = layer, ShiftedWindow(pad)

        def forward(self, x: Tensor) -> Tensor:
            return self.window(self.patches(x).transpose(1, 2).unflatten(1, (3, 3)))

    model = Model()
    with observe(model) as record:
        model(picture)
    found = record["window"].to_dense()
    assert found.shape == (2, 3, 25, 25)
    torch.testing.assert_close(found, model.window.used, rtol=0, atol=2e-6)
