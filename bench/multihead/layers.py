"""Whole layers and a whole model: linear layers, `MultiheadAttention`, and a BERT of MiniLM's size."""

from collections.abc import Iterator
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

import clearhead
from bench.harness.measure import Way
from bench.harness.work import Work, name_of
from clearhead import kernels

BOTH = (torch.float32, torch.bfloat16)


def work(quick: bool) -> Iterator[Work]:
    for dtype in BOTH:
        rows = (16, 512) if quick else (2, 16, 128, 512, 1024)
        yield from (_linear(count, 512, 1536, dtype) for count in rows)
    for dtype in BOTH:
        for batch, length in ((8, 128),) if quick else ((1, 512), (8, 128)):
            yield from (_module(batch, length, dtype, need_weights) for need_weights in (False, True))
    yield from (_bert(dtype, 2 if quick else 6) for dtype in ((torch.float32,) if quick else BOTH))


def _linear(rows: int, wide: int, out: int, dtype: torch.dtype) -> Work:
    def make() -> dict[str, Way]:
        pick = torch.Generator().manual_seed(0)
        x, weight, bias = (torch.randn(s, generator=pick).to(dtype) for s in ((rows, wide), (out, wide), (out,)))
        return {"ours": lambda: kernels.project(x, weight, bias), "F.linear": lambda: F.linear(x, weight, bias)}

    return Work(f"linear {name_of(dtype)}", f"({rows}, {wide}) to {out}", 2.0 * rows * wide * out, dtype, make)


def _module(batch: int, length: int, dtype: torch.dtype, need_weights: bool, wide: int = 512, heads: int = 8) -> Work:
    def make() -> dict[str, Way]:
        torch.manual_seed(0)
        theirs = torch.nn.MultiheadAttention(wide, heads, batch_first=True, dtype=dtype).eval()
        ours = clearhead.MultiheadAttention(wide, heads, batch_first=True, dtype=dtype).eval()
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(batch, length, wide).to(dtype)

        def of(layer: torch.nn.Module) -> Way:
            def way() -> Tensor:
                with torch.no_grad():
                    out: Tensor = layer(x, x, x, need_weights=need_weights)[0]
                return out

            return way

        return {"ours": of(ours), "torch's class": of(theirs)}

    flops = 8.0 * batch * length * wide**2 + 4.0 * batch * length**2 * wide
    words = "weights averaged" if need_weights else "no weights"
    return Work(f"MultiheadAttention {name_of(dtype)}", f"B {batch}, L {length}, {words}", flops, dtype, make)


def _bert(dtype: torch.dtype, layers: int, batch: int = 8, length: int = 128) -> Work:
    wide, inner = 384, 1536

    def make() -> dict[str, Way | str]:
        if find_spec("transformers") is None:
            return {"ours": "transformers is not installed"}
        from transformers import BertConfig, BertModel

        clearhead.register_with_transformers()
        models = {}
        for name in ("clearhead", "sdpa"):
            torch.manual_seed(0)
            config = BertConfig(
                hidden_size=wide, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=inner,
                attn_implementation=name,
            )  # fmt: skip
            models[name] = BertModel(config).to(dtype).eval()
        ids = torch.randint(1000, 30000, (batch, length), generator=torch.Generator().manual_seed(1))
        # As from a tokenizer: sequences of several lengths, padded.
        mask = (torch.arange(length) < torch.linspace(length // 2, length, batch)[:, None]).long()

        def of(name: str) -> Way:
            def way() -> Tensor:
                with torch.no_grad():
                    out: Tensor = models[name](ids, attention_mask=mask).last_hidden_state
                return out * mask[..., None]

            return way

        return {"ours": of("clearhead"), "sdpa": of("sdpa")}

    each = 8.0 * wide**2 + 4.0 * length * wide + 4.0 * wide * inner
    words = f"{layers} layers, {batch} × {length} tokens"
    return Work(f"BERT of MiniLM's size {name_of(dtype)}", words, layers * batch * length * each, dtype, make)
