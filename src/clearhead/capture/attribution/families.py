"""Find the modules that write to the residual stream, and the norms between them, in each model family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from clearhead.errors import CaptureError
from clearhead.messages import message


@dataclass(frozen=True, slots=True)
class Block:
    """One layer.

    Attributes:
        attention: the module that is recorded.
        output: its output projection.
        mlp: the MLP, whose output is added.
        first, second: the norms before attention and MLP, or after them in a post-norm model.
    """

    attention: nn.Module
    output: nn.Module
    mlp: nn.Module
    first: nn.Module
    second: nn.Module


@dataclass(frozen=True, slots=True)
class Family:
    """A model as blocks that write to one residual stream.

    Attributes:
        tokens: its embedding of tokens.
        embeddings: other embeddings that are added, by name.
        start: the norm of the embeddings' sum, if there is one.
        blocks: in order.
        after: whether the model is post-norm (BERT): norms follow each addition instead of preceding attention and MLP.
        names: the names of the blocks' attention modules.
        query, key: their projections, by block: linear layers, or one Conv1D for both (GPT-2).
    """

    tokens: nn.Module
    embeddings: dict[str, nn.Module]
    start: nn.Module | None
    blocks: list[Block]
    after: bool
    names: list[str]
    query: list[nn.Module]
    key: list[nn.Module]


def family_of(model: nn.Module, name: str) -> Family:
    """Return the family of the model that contains an attention module.

    Raises:
        CaptureError: the model belongs to no family whose residual stream is known.
    """
    for find in (_llama, _gpt2, _bert):
        for prefix, module in model.named_modules():
            family = find(module, f"{prefix}." if prefix else "")
            if family is not None and name in family.names:
                return family
    raise CaptureError(
        message(
            "why a head of %(name)r attends is not known: %(model)s is not built as Llama, GPT-2 or BERT are (one "
            "residual stream, RMSNorm or LayerNorm, queries and keys from one linear layer each)",
            name=name,
            model=type(model).__name__,
        )
    )


def _llama(model: Any, prefix: str) -> Family | None:
    layers: Any = getattr(model, "layers", None)
    if not _is_list(layers) or not isinstance(getattr(model, "embed_tokens", None), nn.Embedding):
        return None
    parts = ("self_attn", "mlp", "input_layernorm", "post_attention_layernorm")
    if not all(all(hasattr(layer, part) for part in parts) and len(list(layer.children())) == 4 for layer in layers):
        return None
    projections = ("q_proj", "k_proj", "v_proj", "o_proj")
    if any({name for name, _ in layer.self_attn.named_children()} != set(projections) for layer in layers):
        return None  # a norm of queries and keys (Qwen 3), or other parts
    blocks = [
        Block(x.self_attn, x.self_attn.o_proj, x.mlp, x.input_layernorm, x.post_attention_layernorm) for x in layers
    ]
    names = [f"{prefix}layers.{n}.self_attn" for n in range(len(layers))]
    query, key = ([getattr(x.self_attn, part) for x in layers] for part in ("q_proj", "k_proj"))
    return Family(model.embed_tokens, {}, None, blocks, False, names, query, key)


def _gpt2(model: Any, prefix: str) -> Family | None:
    if not all(hasattr(model, part) for part in ("wte", "wpe", "h")):
        return None
    blocks = [Block(x.attn, x.attn.c_proj, x.mlp, x.ln_1, x.ln_2) for x in model.h]
    merged = [x.attn.c_attn for x in model.h]
    names = [f"{prefix}h.{n}.attn" for n in range(len(blocks))]
    return Family(model.wte, {"position": model.wpe}, None, blocks, False, names, merged, merged)


def _bert(model: Any, prefix: str) -> Family | None:
    embeddings: Any = getattr(model, "embeddings", None)
    layers: Any = getattr(getattr(model, "encoder", None), "layer", None)
    if not _is_list(layers) or not hasattr(embeddings, "word_embeddings"):
        return None
    if not all(hasattr(x, "intermediate") and hasattr(getattr(x.attention, "self", None), "query") for x in layers):
        return None
    if not all(isinstance(getattr(x.output, "LayerNorm", None), nn.LayerNorm) for x in layers):
        return None
    blocks = [
        Block(
            x.attention.self, x.attention.output.dense, x.output.dense, x.attention.output.LayerNorm, x.output.LayerNorm
        )
        for x in layers
    ]
    named = (("position", "position_embeddings"), ("token type", "token_type_embeddings"))
    others = {
        name: getattr(embeddings, part)
        for name, part in named
        if isinstance(getattr(embeddings, part, None), nn.Module)
    }
    names = [f"{prefix}encoder.layer.{n}.attention.self" for n in range(len(layers))]
    query, key = ([getattr(x.attention.self, part) for x in layers] for part in ("query", "key"))
    return Family(embeddings.word_embeddings, others, embeddings.LayerNorm, blocks, True, names, query, key)


def _is_list(layers: Any) -> bool:
    return isinstance(layers, nn.ModuleList)
