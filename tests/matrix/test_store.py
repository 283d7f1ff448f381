"""save and load: what comes back answers as what went in, and nothing large is written."""

import pytest
import torch
from safetensors.torch import save_file

from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix, load, save

from .cases import CASES


@pytest.mark.parametrize("name", CASES)
def test_what_comes_back_is_the_same(name: str, tmp_path):
    matrix = CASES[name].matrix()
    save(matrix, tmp_path / "one.safetensors")
    again = load(tmp_path / "one.safetensors")[""]
    assert torch.equal(again.to_dense(), matrix.to_dense())
    assert torch.equal(again.received(), matrix.received())


def test_several_with_values_lse_and_a_shared_mask(tmp_path):
    q, v = torch.randn(1, 2, 101, 3), torch.randn(1, 2, 101, 5)
    mask = torch.ones(101, 101, dtype=torch.bool).tril()
    first = AttentionMatrix(q, q, value=v, allow=mask)
    second = AttentionMatrix(q + 1, q, allow=mask[None, None].expand(1, 2, 101, 101)).heads(1)
    first.lse  # noqa: B018 (known from here on)
    path = tmp_path / "two.safetensors"
    save({"a": first, "b": second.value_weighted(v[:, 1:])}, path)
    assert path.stat().st_size < 2 * 101 * 101 + 4 * 7 * 2 * 101 * 5
    again = load(path)
    assert list(again) == ["a", "b"]
    assert torch.equal(again["a"].lse, first.lse)
    assert torch.equal(again["a"].value_weighted().to_dense(), first.value_weighted().to_dense())
    assert torch.equal(again["b"].to_dense(), second.value_weighted(v[:, 1:]).to_dense())


def test_files_that_are_something_else(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OptionError, match="is not there"):
        load(path)
    path.write_bytes(b"no")
    with pytest.raises(OptionError, match="no safetensors file"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(OptionError, match="has format None"):
        load(path)
