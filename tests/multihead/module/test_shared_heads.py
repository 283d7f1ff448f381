"""MultiheadAttention.from_shared_heads: converts the textbook class whose heads share one Linear, and its scale."""

import pytest
import torch

import clearhead
from clearhead.errors import OptionError

B, L, S, H, E = 2, 5, 7, 3, 12


def inputs():
    torch.manual_seed(1)
    return [torch.randn(shape) for shape in ((B, L, E), (B, S, E), (B, S, E))]


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


class Textbook(torch.nn.Module):
    """The textbook class, written from its description: reshape to heads, then one small Linear for all heads."""

    def __init__(self, embed_size, heads, bias=False, divisor=None, dropout=0.0):
        super().__init__()
        self.heads, self.head_dim, self.embed_size = heads, embed_size // heads, embed_size
        self.divisor = (embed_size // heads) ** 0.5 if divisor is None else divisor
        self.values, self.keys, self.queries = (
            torch.nn.Linear(self.head_dim, self.head_dim, bias=bias) for _ in range(3)
        )
        self.fc_out = torch.nn.Linear(embed_size, embed_size)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, values, keys, query, mask):
        v, k, q = (x.reshape(len(x), -1, self.heads, self.head_dim) for x in (values, keys, query))
        v, k, q = self.values(v), self.keys(k), self.queries(q)
        energy = torch.einsum("nqhd,nkhd->nhqk", [q, k])
        if mask is not None:
            energy = energy.masked_fill(mask == 0, float("-1e20"))
        self.last = attention = self.dropout(torch.softmax(energy / self.divisor, dim=3))
        out = torch.einsum("nhql,nlhd->nqhd", [attention, v]).reshape(len(query), -1, self.embed_size)
        return self.fc_out(out)


class WithWeights(Textbook):
    """Another argument order, and a pair as the result."""

    def forward(self, query, key, value, mask=None):
        return super().forward(value, key, query, mask), None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("divisor", [(E // H) ** 0.5, E**0.5, 1.0, 2.34567, -3.0])
def test_from_shared_heads_finds_the_scale_of_the_textbook_class(bias, divisor):
    source = Textbook(E, H, bias, divisor, dropout=0.5)
    q, k, v = inputs()
    source(v, k, q, None)
    layer = clearhead.MultiheadAttention.from_shared_heads(source)
    assert all(module.training for module in source.modules())
    same(layer(q, k, v)[0], source.eval()(v, k, q, None))
    given = clearhead.MultiheadAttention.from_shared_heads(source.state_dict(), H, scale=1 / divisor)
    same(given(q, k, v)[0], source(v, k, q, None))


def test_from_shared_heads_reads_the_names_of_the_arguments():
    source = WithWeights(E, H)
    q, k, v = inputs()
    same(clearhead.MultiheadAttention.from_shared_heads(source)(q, k, v)[0], source(q, k, v)[0])


def test_from_shared_heads_of_a_state_dict_divides_by_the_root_of_head_dim():
    source = Textbook(E, H)
    q, k, v = inputs()
    same(clearhead.MultiheadAttention.from_shared_heads(source.state_dict(), H)(q, k, v)[0], source(v, k, q, None))


@pytest.mark.parametrize("size", [1e-3, 30.0])
def test_from_shared_heads_finds_the_scale_of_small_and_large_weights(size):
    source = Textbook(E, H, True, E**0.5).double()
    with torch.no_grad():
        for layer in (source.queries, source.keys):
            layer.weight.mul_(size)
    q, k, v = (x.double() for x in inputs())
    same(clearhead.MultiheadAttention.from_shared_heads(source)(q, k, v)[0], source(v, k, q, None))


class Residual(Textbook):
    def forward(self, values, keys, query, mask):
        return query + super().forward(values, keys, query, mask)


class Sigmoid(Textbook):
    def forward(self, values, keys, query, mask):
        return super().forward(values.sigmoid(), keys, query, mask)


class Broken(Textbook):
    def forward(self, values, keys, query, mask):
        raise RuntimeError("no room")


@pytest.mark.parametrize(
    ("kind", "message"), [(Residual, "with any scale"), (Sigmoid, "with any scale"), (Broken, "did not run.*no room")]
)
def test_from_shared_heads_refuses_a_module_that_no_scale_explains(kind, message):
    with pytest.raises(OptionError, match=f"{kind.__name__}.*{message}"):
        clearhead.MultiheadAttention.from_shared_heads(kind(E, H))
