"""The kernel for the Hugging Face hub: flash-attn's functions, in a repository that `kernels` and transformers load."""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch

import scripts
from clearhead.errors import OptionError

ROOT = Path(__file__).parents[3]
HUB = ROOT / "tools" / "hub"


@pytest.fixture(scope="module")
def kernel():
    return scripts.load(HUB / "attention.py")


@pytest.fixture(scope="module")
def repository(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "repository"
    variants = scripts.load(HUB / "build.py").build(folder)
    assert "torch-universal" in variants
    return folder


def flash(q, k, v, causal=False, window=(-1, -1), softcap=0.0, slopes=None):
    """The definition of flash-attn 2.1, in float64: (L, H, D) each."""
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[0] // x.shape[0], 0) for x in (k, v))
    logits = q @ k.mT / q.shape[-1] ** 0.5
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    length, keys = logits.shape[1:]
    i, j = torch.arange(length)[:, None] + keys - length, torch.arange(keys)
    if slopes is not None:
        logits = logits - slopes.double()[:, None, None] * (i - j).abs()
    allowed = torch.ones(length, keys, dtype=torch.bool)
    left, right = window[0], 0 if causal else window[1]
    if right >= 0:
        allowed &= j <= i + right
    if left >= 0:
        allowed &= j >= i - left
    weights = logits.masked_fill(~allowed, -torch.inf).softmax(-1).nan_to_num()
    return (weights @ v).transpose(0, 1)


CASES = [
    {},
    {"causal": True},
    {"causal": True, "window": (3, 0)},
    {"window": (2, 5)},
    {"window": (-1, 1)},
    {"window": (4, -1), "softcap": 5.0},
    {"causal": True, "slopes": torch.tensor([0.5, 0.25, 0.125, 0.0625])},
]


@pytest.mark.parametrize("lengths", [(11, 11), (5, 13), (13, 5)], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case) or "full")
def test_results_equal_the_definition_of_flash_attn(kernel, case, lengths):
    q, k, v = torch.randn(2, lengths[0], 4, 8), torch.randn(2, lengths[1], 2, 8), torch.randn(2, lengths[1], 2, 3)
    options = {"causal": case.get("causal", False), "window_size": case.get("window", (-1, -1)),
               "softcap": case.get("softcap", 0.0), "alibi_slopes": case.get("slopes")}  # fmt: skip
    out = kernel.flash_attn_func(q, k, v, **options)
    expected = torch.stack([flash(*parts, **case) for parts in zip(q, k, v, strict=True)])
    assert (out - expected).abs().max() < 32 * torch.finfo(out.dtype).eps * 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case) or "full")
@pytest.mark.parametrize("keys", [(7, 3, 11), (7, 5, 9)], ids=["same", "other"])
def test_packed_sequences_do_not_see_one_another(kernel, case, keys):
    rows = (7, 3, 11)
    q, k, v = torch.randn(sum(rows), 4, 8), torch.randn(sum(keys), 2, 8), torch.randn(sum(keys), 2, 8)
    at = torch.tensor([0, *rows]).cumsum(0).int()
    key_at = torch.tensor([0, *keys]).cumsum(0).int()
    options = {"causal": case.get("causal", False), "window_size": case.get("window", (-1, -1)),
               "softcap": case.get("softcap", 0.0), "alibi_slopes": case.get("slopes")}  # fmt: skip
    out = kernel.flash_attn_varlen_func(q, k, v, at, key_at, max(rows), max(keys), **options)
    parts = zip(q.split(rows), k.split(keys), v.split(keys), strict=True)
    assert (out - torch.cat([flash(*part, **case) for part in parts])).abs().max() < 1e-5


def test_unsupported_arguments_are_refused(kernel):
    q, at = torch.randn(5, 2, 8), torch.tensor([0, 5])
    with pytest.raises(OptionError, match="return_matrix"):
        kernel.flash_attn_func(q[None], q[None], q[None], return_attn_probs=True)
    with pytest.raises(OptionError, match="return_matrix"):
        kernel.flash_attn_varlen_func(q, q, q, at, at, return_attn_probs=True)
    with pytest.raises(OptionError, match="paged"):
        kernel.flash_attn_varlen_func(q, q, q, at, at, block_table=torch.zeros(1, 1))


@pytest.mark.stress
def test_the_library_of_kernels_loads_the_repository(repository):
    """In a subprocess, because here `kernels` is a folder of tests."""
    try:
        version("kernels")
    except PackageNotFoundError:
        pytest.skip("the package kernels is not installed")
    program = f"""
import kernels, torch
from pathlib import Path
for loaded in kernels.get_local_kernel(Path({str(repository)!r})), kernels.get_kernel("clearhead/attention", version=1):
    q = torch.randn(1, 7, 2, 8)
    print(loaded.__file__, loaded.flash_attn_func(q, q, q, causal=True).shape == q.shape)
"""
    replaced = {**os.environ, "LOCAL_KERNELS": f"clearhead/attention={repository}"}  # replaces only the download
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=repository, env=replaced)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        file, computed = line.split()
        assert Path(file).is_relative_to(repository)
        assert computed == "True"
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", [pytest.param("torch-universal", marks=pytest.mark.stress), "with the library"])
def test_a_variant_needs_no_installed_package(repository, variant):
    """In a subprocess with torch and without clearhead: `-S` skips the installed package."""
    others = [path.name for path in (repository / "build").iterdir() if path.name != "torch-universal"]
    if variant != "torch-universal" and not others:
        pytest.skip("the native library was not built on this machine")
    place = repository / "build" / (variant if variant == "torch-universal" else others[0])
    program = f"""
import sys, importlib.util
sys.path[:0] = {[path for path in sys.path if path.endswith("site-packages")]!r}
installed = importlib.util.find_spec("clearhead")
assert installed is None or installed.origin is None  # an editable install leaves a folder with only the library
spec = importlib.util.spec_from_file_location("kernel", {str(place / "__init__.py")!r})
kernel = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernel)
import torch, clearhead
q = torch.randn(1, 7, 2, 8)
expected = torch.nn.functional.scaled_dot_product_attention(*(q.transpose(1, 2),) * 3, is_causal=True).transpose(1, 2)
print((kernel.flash_attn_func(q, q, q, causal=True) - expected).abs().max().item() < 1e-5)
print(clearhead.__file__.startswith({str(place)!r}), bool(clearhead.kernels.targets()))
"""
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True", str(variant != "torch-universal")]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["varlen", "forward"])
def test_transformers_runs_a_model_on_it(repository, kernel, form, monkeypatch):
    """Through transformers' own code for `attn_implementation="org/repo"`; only the download is replaced."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    hub = pytest.importorskip("transformers.integrations.hub_kernels", reason="this transformers has no hub kernels")
    requested = []

    def from_folder(name, **_):
        requested.append(name)
        loaded = scripts.load(next(repository.glob("build/*/__init__.py")))
        if form == "forward":  # a kernel without flash-attn's functions is called as an attention interface
            del loaded.flash_attn_varlen_func, loaded.flash_attn_func
        return loaded

    monkeypatch.setattr(hub, "is_kernels_available", lambda *_: True)
    monkeypatch.setattr(hub, "get_kernel", from_folder)
    sizes = {"vocab_size": 31, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).eval()
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0]])
    padding = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    with torch.no_grad():
        expected = model(tokens, attention_mask=padding).logits
        model.set_attn_implementation(f"clearhead-{form}/attention", allow_all_kernels=True)
        out = model(tokens, attention_mask=padding).logits
    assert requested == [f"clearhead-{form}/attention"]
    assert (out - expected)[padding.bool()].abs().max() < 1e-5
