"""Describe ProphetNet's decoder as one matrix: a main stream, and streams that predict one, two … tokens ahead.

The layer's input holds all streams one after the other, and so do the queries and keys here. A query of the main stream
sees the main stream's keys; a query of another stream sees those and its own stream's keys. Each row is one softmax.
The model's `decoder_attentions` are the first L rows and S keys. Its position terms are kept as a table.
"""

from typing import Any

import torch
from torch import Tensor

from clearhead.capture.call import Call, attention_of

CLASSES = ("ProphetNetNgramSelfAttention",)
_NAMES = ("hidden_states", "cache", "attention_mask", "extended_predict_attention_mask")


def describe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
    """Return the Call of one pass of the module, from its arguments and the weights that it returns.

    Queries, keys and position terms are computed again. The output does not change.
    """
    given = dict(zip(_NAMES, args, strict=False)) | kwargs
    hidden = given["hidden_states"]
    length = hidden.shape[1] // (1 + module.ngram)
    with torch.no_grad():
        query, key, value = (
            layer(hidden).unflatten(-1, (module.num_attn_heads, -1)).transpose(1, 2)
            for layer in (module.query_proj, module.key_proj, module.value_proj)
        )
        cache = given.get("cache", given.get("past_key_values"))  # its name in transformers before 5.24
        main_key, main_value = _main(module, cache, key[:, :, :length], value[:, :, :length])
        key = torch.cat([main_key, key[:, :, length:]], 2)
        value = torch.cat([main_value, value[:, :, length:]], 2)
        sizes = (*query.shape[:3], key.shape[2])
        bias = _joined(_terms(module, given, sizes, length), sizes, length)
        weights = _joined((output[1], output[2]), sizes, length, empty=0.0)
        out = (weights @ value).transpose(1, 2)
    return Call(
        module=module,
        query=query,
        key=key,
        attention=attention_of(query, bias=bias),
        value=value,
        out=out,
        dropout=module.training and module.attention_dropout > 0,
    )


def _main(module: Any, cache: Any, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """The main stream's keys and values, those of earlier steps before this one's."""
    if cache is None:
        return key, value
    kept = getattr(cache, "self_attention_cache", cache).layers[module.layer_idx]
    return kept.keys, kept.values


def _terms(module: Any, given: dict[str, Any], sizes: tuple[int, ...], length: int) -> tuple[Tensor, Tensor]:
    """The terms added to the logits of the main stream, (B, H, L, S), and of the others, (B, n, H, L, S + L)."""
    batch, heads, _, keys = sizes
    hidden, ahead, places = given["hidden_states"], module.ngram, given.get("position_ids")
    before = keys - ahead * length
    shaped = hidden.new_empty(1)  # the model uses only its shape
    main = module.get_main_relative_pos_embeddings(
        hidden[:, :length],
        shaped.expand(batch, heads, length, before),
        places,
        given.get("main_relative_position_buckets"),
    )
    if given.get("attention_mask") is not None:
        main = main + given["attention_mask"]
    others = module.get_predict_relative_pos_embeddings(
        hidden[:, length:].unflatten(1, (ahead, length)).transpose(1, 2),
        shaped.expand(batch, ahead, heads, length, before + length),
        places,
        given.get("predict_relative_position_buckets"),
    )
    mask = given.get("extended_predict_attention_mask")
    return main, others if mask is None else others + mask.permute(0, 2, 1, 3, 4).to(others.dtype)


def _joined(parts: tuple[Tensor, Tensor], sizes: tuple[int, ...], length: int, *, empty: float | None = None) -> Tensor:
    """Both tables in one, (B, H, all queries, all keys); `empty` (least of the dtype: masked) where neither reaches."""
    main, others = parts
    table = main.new_full(sizes, torch.finfo(main.dtype).min if empty is None else empty)
    before = main.shape[3]
    table[:, :, :length, :before] = main
    for stream, own in enumerate(others.unbind(1)):
        rows = slice((1 + stream) * length, (2 + stream) * length)
        start = before + stream * length
        table[:, :, rows, :before] = own[..., :before]
        table[:, :, rows, start : start + length] = own[..., before:]
    return table
