"""Unmodified Hugging Face models with and without `clearhead.accelerate()`: prefill, and decoding with a cache."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

import clearhead
from bench.harness.measure import Way
from bench.harness.work import Work, name_of

NOT_INSTALLED: dict[str, Way | str] = {"ours": "transformers is not installed"}
DECODED = 100  # tokens


def work(quick: bool) -> Iterator[Work]:
    if quick:
        yield from (_prefill(family, torch.float32, 128, layers=2) for family in ("BERT", "Llama"))
        yield _decode(torch.float32, prompt=64, tokens=5, layers=2)
        return
    for dtype in (torch.float32, torch.bfloat16):
        for length in (512, 2048):
            yield _prefill("BERT", dtype, length, layers=6)
            yield _prefill("Llama", dtype, length, layers=30)
        yield _decode(dtype, prompt=512, tokens=DECODED, layers=30)


def model_of(family: str, dtype: torch.dtype, layers: int) -> torch.nn.Module:
    """A BERT of MiniLM's width, or a Llama of width 576 with 9 heads on 3 key heads; with random weights."""
    from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel

    torch.manual_seed(0)
    options: dict[str, Any] = {"max_position_embeddings": 2048, "attn_implementation": "sdpa"}
    if family == "BERT":
        config = BertConfig(
            hidden_size=384, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=1536, **options
        )
        model = BertModel(config)
    else:
        config = LlamaConfig(
            hidden_size=576, num_hidden_layers=layers, num_attention_heads=9, num_key_value_heads=3,
            intermediate_size=1536, vocab_size=1000, **options,
        )  # fmt: skip
        model = LlamaModel(config)
    return model.to(dtype).eval()


def _ids(length: int) -> Tensor:
    return torch.randint(0, 1000, (1, length), generator=torch.Generator().manual_seed(1))


def _both(run: Way) -> dict[str, Way | str]:
    """The run with and without acceleration."""

    def accelerated() -> Tensor:
        with clearhead.accelerate():
            out: Tensor = run()
        return out

    return {"ours": accelerated, "without": run}


def _prefill(family: str, dtype: torch.dtype, length: int, layers: int) -> Work:
    def make() -> dict[str, Way | str]:
        if find_spec("transformers") is None:
            return NOT_INSTALLED
        model, ids = model_of(family, dtype, layers), _ids(length)

        def run() -> Tensor:
            with torch.no_grad():
                out: Tensor = model(ids).last_hidden_state
            return out

        return _both(run)

    wide, inner = (384, 1536) if family == "BERT" else (576, 1536)
    products = 8 if family == "BERT" else 8 * 2 / 3  # key and value of 3 heads are a third as wide
    flops = layers * length * (products * wide**2 + (4 if family == "BERT" else 6) * wide * inner + 4 * length * wide)
    return Work(
        f"accelerated {family} {name_of(dtype)}, prefill", f"{layers} layers, {length} tokens", flops, dtype, make
    )


def _decode(dtype: torch.dtype, prompt: int, tokens: int, layers: int) -> Work:
    def make() -> dict[str, Way | str]:
        if find_spec("transformers") is None:
            return NOT_INSTALLED
        from transformers import DynamicCache

        model, ids = model_of("Llama", dtype, layers), _ids(prompt + tokens)
        filled = DynamicCache(config=model.config)
        with torch.no_grad():
            model(ids[:, :prompt], None, None, filled)  # by position: transformers 5.24 renamed the argument

        def run() -> Tensor:
            cache = DynamicCache([(layer.keys, layer.values) for layer in filled.layers])
            with torch.no_grad():
                for step in range(prompt, prompt + tokens):
                    out: Tensor = model(ids[:, step : step + 1], None, None, cache).last_hidden_state
            return out

        return _both(run)

    flops = layers * tokens * (8 * 2 / 3 * 576**2 + 6 * 576 * 1536 + 4 * (prompt + tokens / 2) * 576)
    return Work(
        f"accelerated Llama {name_of(dtype)}, decode",
        f"{layers} layers, {tokens} tokens after {prompt}",
        flops,
        dtype,
        make,
    )
