"""save and load: a loaded matrix equals the saved one, and nothing large is written."""

import json

import pytest
import torch

from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix, load, save

from .cases import CASES

save_file = pytest.importorskip("safetensors.torch", reason="files need clearhead[models]").save_file
safe_open = pytest.importorskip("safetensors", reason="files need clearhead[models]").safe_open


@pytest.mark.parametrize("name", CASES)
def test_a_loaded_matrix_equals_the_saved_one(name: str, tmp_path):
    matrix = CASES[name].matrix()
    save(matrix, tmp_path / "one.safetensors")
    again = load(tmp_path / "one.safetensors")[""]
    assert torch.equal(again.to_dense(), matrix.to_dense())
    assert torch.equal(again.received(), matrix.received())


@pytest.mark.parametrize("first_row", [-1, 1.5, "3", True, 2**60])
def test_a_part_that_is_loaded_keeps_its_positions(first_row: object, tmp_path):
    q = torch.randn(2, 3, 11, 5)
    part = AttentionMatrix(q, q, is_causal=True).rows(3, 8)
    save(part, tmp_path / "part")
    assert torch.equal(load(tmp_path / "part")[""].mean_distance(), part.mean_distance())
    damaged(tmp_path / "a", entry={"first_row": first_row})
    with pytest.raises(OptionError, match=r"a is damaged .*first_row is"):
        load(tmp_path / "a")


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


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(OptionError, match="does not exist"):
        load(path)
    path.write_bytes(b"no")
    with pytest.raises(OptionError, match="not a safetensors file"):
        load(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(OptionError, match="has format None"):
        load(path)


PARTS = {"query", "key", "value", "lse", "allow", "bias", "alibi", "sinks"}
SHAPES = {"no axes": (), "one axis": (13,), "less": (1, 1, 4, 10), "more": (3, 4, 6, 12), "empty": (0, 0, 0, 0)}
NUMBERS = [None, "x", [], {}, 1e400, float("nan"), 10**30, -(10**30)]


def damaged(path, *, tensors=None, entry=None, matrices=None):
    """Write a file in which some tensors, parts of its one entry, or all entries are others."""
    q, k = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 11, 7)
    extra = {"allow": torch.rand(2, 3, 5, 11) > 0.2, "bias": torch.randn(2, 3, 5, 11), "sinks": torch.randn(3)}
    matrix = AttentionMatrix(q, k, value=torch.randn(2, 3, 11, 7), alibi=torch.rand(3), **extra)
    matrix.lse  # noqa: B018 (saved too)
    save({"a": matrix}, path)
    with safe_open(path, "pt") as file:
        metadata, whole = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    entries = json.loads(metadata["matrices"])
    assert set(entries[0]["tensors"]) == PARTS
    for name, value in (entry or {}).items():
        entries[0][name] = value(entries[0][name]) if callable(value) else value
    metadata["matrices"] = json.dumps(entries) if matrices is None else matrices
    save_file(whole | {f"0.{part}": tensor for part, tensor in (tensors or {}).items()}, path, metadata)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_tensor_of_another_shape_is_never_read_past_its_end(part: str, shape: tuple[int, ...], tmp_path):
    given = torch.ones(shape, dtype=torch.bool if part == "allow" else torch.float32)
    damaged(tmp_path / "a", tensors={part: given})
    if part in {"allow", "bias"} and shape == ():
        assert load(tmp_path / "a")["a"].entropy().shape == (2, 3, 5)  # one number for every pair
        return
    with pytest.raises(OptionError, match="a is damaged"):
        load(tmp_path / "a")


@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_part_that_is_missing_or_of_no_use_is_named(part: str, tmp_path):
    damaged(tmp_path / "a", tensors={part: torch.ones(2, 3, 5, 7, dtype=torch.complex64)})
    with pytest.raises(OptionError, match="a is damaged"):
        load(tmp_path / "a")
    damaged(tmp_path / "b", entry={"tensors": lambda tensors: tensors | {part: ["elsewhere", 5]}})
    with pytest.raises(OptionError, match="b is damaged"):
        load(tmp_path / "b")


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
@pytest.mark.parametrize("name", ["scale", "first_query", "first_key", "band_low", "band_high", "softcap"])
def test_a_number_out_of_bounds_is_named(name: str, value, tmp_path):
    damaged(tmp_path / "a", entry={"options": lambda options: options | {name: value}})
    if value is None and name in {"band_low", "band_high", "softcap"}:
        assert load(tmp_path / "a")["a"].entropy().shape == (2, 3, 5)
        return
    with pytest.raises(OptionError, match=f"a is damaged .*{name} is"):
        load(tmp_path / "a")


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', "[" * 9999, "[{}]", f"[{'9' * 9999}]", '[{"name": 1}]'])
def test_entries_that_save_did_not_write_are_a_sentence(text: str, tmp_path):
    damaged(tmp_path / "a", matrices=text)
    with pytest.raises(OptionError, match="a is damaged"):
        load(tmp_path / "a")


@pytest.mark.slow
def test_every_call_of_a_generation_is_saved_and_its_keys_are_written_once(tmp_path):
    from clearhead.capture import Record, observe

    torch.manual_seed(0)
    transformers = pytest.importorskip("transformers", reason="a model needs clearhead[models]")
    config = transformers.LlamaConfig(
        vocab_size=23, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=17,
        num_key_value_heads=2, eos_token_id=None, max_position_embeddings=256,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with observe(model) as record:
        model.generate(torch.tensor([[5, 3, 9, 7, 11]]), max_new_tokens=101, do_sample=False)
    path, name = tmp_path / "generation.safetensors", "model.layers.1.self_attn"
    save(record, path)
    again = load(path)
    assert len(again.calls(name)) == len(record.calls(name)) == 101
    for ours, theirs in zip(again.calls(name), record.calls(name), strict=True):
        assert torch.equal(ours.q, theirs.q)
        assert torch.equal(ours.k, theirs.k)
        # Bits of a product depend on where its operands lie: 8 bytes past a cache line they differ on a Zen 4.
        torch.testing.assert_close(ours.to_dense(), theirs.to_dense(), rtol=0, atol=torch.finfo(torch.float32).eps)
    assert path.stat().st_size < 2 * 105 * (4 + 2) * 6 * 4 + 100_000  # queries and keys once, and one line per call
    rebuilt = Record.of(again)
    assert rebuilt.positions(name) == record.positions(name)
    joined, expected = (each.joined()[name].to_dense() for each in (rebuilt, record))
    torch.testing.assert_close(joined, expected, rtol=0, atol=torch.finfo(torch.float32).eps)


def test_a_file_of_format_2_is_read(tmp_path):
    q = torch.randn(1, 2, 5, 3)
    options = {"scale": 0.5, "reach": [None, 0], "softcap": None, "alibi_offset": 0}
    entry = {"name": "a", "tensors": {"query": "0.query", "key": "0.query"}, "options": options}
    path = tmp_path / "old"
    save_file({"0.query": q}, path, {"format": "clearhead.attention/2", "matrices": json.dumps([entry])})
    expected = AttentionMatrix(q, q, scale=0.5, is_causal=True).to_dense()
    assert torch.equal(load(path)["a"].to_dense(), expected)


def test_a_file_of_format_3_is_read(tmp_path):
    q, slopes, tilt = torch.randn(1, 2, 5, 3), torch.tensor([0.5, 0.25]), torch.randn(1, 2, 1, 5)
    options = {"scale": 0.5, "reach": [-3, 2], "softcap": 1.5, "alibi_offset": 2}
    names = {"query": ["0.query", 5], "key": ["0.query", 5], "alibi": ["0.alibi", 0], "tilt": ["0.tilt", 1]}
    entry = {"name": "a", "tensors": names, "options": options, "place": None}
    tensors, path = {"0.query": q, "0.alibi": slopes, "0.tilt": tilt}, tmp_path / "old"
    save_file(tensors, path, {"format": "clearhead.attention/3", "matrices": json.dumps([entry])})
    expected = AttentionMatrix(q, q, scale=0.5, reach=(-3, 2), softcap=1.5, alibi=slopes, alibi_offset=2, bias=tilt)
    torch.testing.assert_close(load(path)["a"].to_dense(), expected.to_dense())
