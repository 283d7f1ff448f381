"""`Attention`: a part, the transpose and every conversion give each pair the same logit."""

import dataclasses

import pytest
import torch

from clearhead import masks, spec
from clearhead.errors import OptionError
from clearhead.spec import ARGUMENTS, FIELDS, LEARNABLE, TENSORS, Attention, Axes

B, H, L, S = 2, 3, 11, 13


def number(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def allowed(*shape: int) -> torch.Tensor:
    return number(*shape) > -0.5


ATTENTIONS = {
    "nothing": Attention(),
    "band": Attention(0.5, band_low=-5, band_high=2),
    "band at positions": Attention(-0.5, band_low=-5, band_high=2, first_query=7, first_key=4),
    "mask": Attention(allow=allowed(L, S)),
    "mask of keys": Attention(allow=allowed(B, 1, 1, S), softcap=1.5),
    "bias": Attention(bias=number(H, L, S), key_bias=number(B, H, 1, S)),
    "bias of rows": Attention(bias=number(B, 1, L, 1)),
    "slopes": Attention(alibi=number(H), first_query=3, sinks=number(H)),
    "scale per head": Attention(-0.5, head_scale=number(H), band_high=2, softcap=1.5),
    "rule": Attention(rule=masks.document(torch.arange(S) // 4) | masks.prefix(2)),
    "rule of heads": Attention(rule=masks.from_dense(allowed(H, L + 2, S)), first_query=2),
    "all": Attention.of(
        number(H), is_causal=True, reach=(-9, 9), first_query=2, softcap=2.0, sinks=number(H), alibi=number(H),
        bias=number(B, H, L, S), key_bias=number(1, 1, 1, S), allow=allowed(B, H, L, 1),
        rule=masks.from_dense(allowed(B, 1, 1, S)),
    ),
}  # fmt: skip
PRODUCTS = number(B, H, L, S)


def logits(attention: Attention, products: torch.Tensor = PRODUCTS) -> torch.Tensor:
    return spec.logits(attention, products * attention.multiplier)


@pytest.fixture(params=ATTENTIONS)
def attention(request) -> Attention:
    return ATTENTIONS[request.param]


def test_every_field_has_a_row_in_the_table():
    assert list(FIELDS) == [field.name for field in dataclasses.fields(Attention)]
    assert {name for name, row in FIELDS.items() if row.is_tensor} == set(TENSORS)
    assert set(LEARNABLE) < set(TENSORS) < set(ARGUMENTS)
    assert all(row.schema == "Tensor?" for row in FIELDS.values() if row.is_tensor)


def test_a_part_has_the_logits_of_the_whole(attention):
    rows, keys = slice(3, 8), slice(2, 11)
    part = attention.part(rows, keys)
    assert torch.equal(logits(part, PRODUCTS[:, :, rows, keys]), logits(attention)[:, :, rows, keys])
    nested = part.part(slice(1, 4), slice(3, 5))
    assert torch.equal(logits(nested, PRODUCTS[:, :, 4:7, 5:7]), logits(attention)[:, :, 4:7, 5:7])


@pytest.mark.parametrize("heads", [slice(1, 3), torch.tensor([2, 0, 2])], ids=["slice", "list"])
def test_some_heads_have_the_logits_of_the_whole(attention, heads):
    part = attention.heads(heads)
    assert torch.equal(logits(part, PRODUCTS[:, heads]), logits(attention)[:, heads])
    again = part.heads(slice(1, 2))
    assert torch.equal(logits(again, PRODUCTS[:, heads][:, 1:2]), logits(attention)[:, heads][:, 1:2])
    for name in ("sinks", "alibi", "head_scale"):
        whole = getattr(attention, name)
        assert whole is None or torch.equal(getattr(part, name), whole[heads])


def test_some_batch_entries_have_the_logits_of_the_whole(attention):
    part = attention.batch(slice(1, 2))
    assert torch.equal(logits(part, PRODUCTS[1:2]), logits(attention)[1:2])


def test_queries_selected_in_any_order_keep_their_logits(attention):
    rows = torch.tensor([7, 0, 7, 4])
    if attention.rule is not None:
        with pytest.raises(OptionError, match="needs the position of each query"):
            attention.select_rows(rows, S)
        attention = attention.change(rule=None)
    part = attention.select_rows(rows, S)
    torch.testing.assert_close(logits(part, PRODUCTS[:, :, rows]), logits(attention)[:, :, rows])


def test_single_pairs_have_the_logits_of_the_whole(attention):
    make = torch.Generator().manual_seed(0)
    batch, head, row, key = (torch.randint(size, (50,), generator=make) for size in (B, H, L, S))
    scaled = PRODUCTS[batch, head, row, key] * attention.multiplier_of(head)
    ours = spec.logits_at(attention, scaled, batch, head, row, key, (B, H, L, S))
    torch.testing.assert_close(ours, logits(attention)[batch, head, row, key])


def test_the_transpose_keeps_the_logit_of_each_pair(attention):
    if attention.sinks is not None or attention.rule is not None:
        with pytest.raises(OptionError, match="cannot be transposed"):
            attention.transposed()
        attention = attention.change(sinks=None, rule=None)
    torch.testing.assert_close(logits(attention.transposed(), PRODUCTS.mT), logits(attention).mT)


def test_under_applies_the_masks_and_biases_of_both():
    first, other = ATTENTIONS["band at positions"], Attention.of(reach=(None, 1), allow=allowed(L, S), alibi=number(H))
    both = logits(first.change(softcap=None).under(other), PRODUCTS)
    expected = logits(first) + logits(other, PRODUCTS * 0)
    torch.testing.assert_close(both, expected)
    with pytest.raises(OptionError, match="different positions"):
        ATTENTIONS["slopes"].under(other)
    with pytest.raises(OptionError, match="two attentions with a rule"):
        ATTENTIONS["rule"].under(ATTENTIONS["rule of heads"])


def test_operator_arguments_and_saved_fields_restore_the_value(attention):
    attention = attention.change(rule=None)
    again = Attention.from_arguments(dict(zip(ARGUMENTS, attention.arguments(), strict=True)))
    assert again == attention.change(seed=0)
    saved = Attention(**attention.tensors(), **attention.saved_numbers())
    assert saved == attention
    numbers = attention.without_tensors()
    assert numbers.tensors() == {}
    assert numbers.with_tensors(attention.tensor_list()) == attention


def test_equality_requires_the_same_tensor_objects(attention):
    assert attention == attention.change()
    assert attention != attention.change(first_key=attention.first_key + 1)
    for name, held in attention.tensors().items():
        assert attention != attention.change(**{name: held.clone()})
    assert len({attention, attention.change()}) == 1
    assert attention != 1


def test_join_biases_keeps_the_logits():
    attention = ATTENTIONS["bias"]
    assert attention.join_biases().key_bias is None
    torch.testing.assert_close(logits(attention.join_biases()), logits(attention))


def test_learning_names_the_tensors_that_require_a_gradient():
    attention = Attention(bias=number(L, S).requires_grad_(), sinks=number(H), alibi=number(H).requires_grad_())
    assert attention.learning() == ["bias", "alibi"]
    assert FIELDS["allow"].axes is Axes.PAIRS
    assert not FIELDS["allow"].learns


@pytest.mark.parametrize("part", ["heads", "batch"])
def test_cutting_heads_or_batch_entries_under_dropout_is_refused(part):
    with pytest.raises(OptionError, match="dropout pattern"):
        getattr(Attention(dropout_p=0.5, seed=3), part)(slice(1, 2))
