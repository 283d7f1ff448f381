"""Our attention inside Hugging Face models: `attn_implementation="clearhead"`."""

import functools
from typing import Any

import torch
from torch import Tensor

from clearhead import hooks
from clearhead.arguments import checked
from clearhead.errors import OptionError
from clearhead.extras import needs
from clearhead.masks import Mask
from clearhead.masks import causal as causal_mask
from clearhead.masks import sliding_window as sliding
from clearhead.masks.kinds import from_causal_bias
from clearhead.multihead.functional import attention

NAME = "clearhead"
# Arguments that other functions of the interface handle and this one does not. Everything else that models pass
# (positions, cache bookkeeping, flags for other layers) does not change attention.
_NOT_HANDLED = {
    "cache": "a paged cache (continuous batching)",
    "cu_seq_lens_q": "packed sequences given by cu_seq_lens",
    "cu_seq_lens_k": "packed sequences given by cu_seq_lens",
    "head_mask": "head_mask",
    "layer_head_mask": "layer_head_mask",
}


def register_with_transformers(*, distributed: Any = None, placement: str = "contiguous") -> None:
    """Make `attn_implementation="clearhead"` work in Hugging Face transformers, in forward and in generate.

    Masks are registered too: Clearhead gets the same boolean masks as torch's SDPA. Soft caps, sinks, position biases,
    grouped heads, values of another width and sliding windows are supported. With `output_attentions=True` each layer's
    entry is an AttentionMatrix, which is never stored.

    A second call only changes `distributed` and `placement`.

    Args:
        distributed: a DeviceMesh of one axis or a process group over whose ranks the sequence is sharded. Each rank
            calls the model with its own part of the tokens, at least one, and with their `position_ids`, without
            padding and without a KV cache from an earlier call; see clearhead.distributed.shard. None = not sharded.
        placement: which positions a rank holds, as in clearhead.distributed.attention.

    Raises:
        ExtraError: transformers is not installed (an ImportError too).
        OptionError: later, if a model's attention does not use the interface (setting the name would silently change
            nothing), or a call needs something that is not supported.

    Example:
        >>> register_with_transformers()
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> config = LlamaConfig(vocab_size=11, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        ...                      num_attention_heads=2, num_key_value_heads=1)
        >>> config._attn_implementation = "clearhead"
        >>> LlamaForCausalLM(config)(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 3, 11])
    """
    with needs("models", "register_with_transformers"):
        from transformers import AttentionInterface, AttentionMaskInterface
        from transformers.masking_utils import sdpa_mask
        from transformers.modeling_utils import PreTrainedModel

    if distributed is None:
        AttentionInterface.register(NAME, forward)
        AttentionMaskInterface.register(NAME, sdpa_mask)
    else:
        AttentionInterface.register(NAME, functools.partial(sharded_forward, distributed, placement))
        AttentionMaskInterface.register(NAME, _refuse_padding)
    original = PreTrainedModel.get_correct_attn_implementation
    if getattr(original, "is_clearheads", False):
        return

    @functools.wraps(original)
    def checked(self: Any, requested_attention: str | None, *args: Any, **options: Any) -> str:
        if requested_attention == NAME and not type(self)._can_set_attn_implementation():
            raise OptionError(
                f"{type(self).__name__} computes its own attention and ignores attn_implementation, so "
                f"attn_implementation={NAME!r} would change nothing. Use its default, or another model."
            )
        return original(self, requested_attention, *args, **options)

    checked.is_clearheads = True  # type: ignore[attr-defined]
    PreTrainedModel.get_correct_attn_implementation = checked


@checked(convert={"attention_mask": from_causal_bias})
def forward(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    output_attentions: bool = False,
    **others: Any,
) -> tuple[Tensor, Any]:
    """Compute attention for a transformers model: the function behind attn_implementation="clearhead".

    Args:
        query, key, value: (B, H, L, D), (B, H_kv, S, D), (B, H_kv, S, E).
        attention_mask: broadcastable to (B, H, L, S), bool (True = may attend) or float; None = causal if the
            module is, else everything.
        position_bias: float, added to the logits as well as the mask.
        s_aux: (H,) sinks.
    Returns:
        out (B, L, H, E), and an AttentionMatrix if requested, else None.
    Raises:
        OptionError: names the argument that is not supported.
    """
    for name, feature in _NOT_HANDLED.items():
        if others.get(name) is not None:
            raise OptionError(f"attn_implementation={NAME!r} does not support {feature}. Use 'sdpa' or 'eager' for it.")
    if attention_mask is not None and not isinstance(attention_mask, Tensor | Mask):
        raise OptionError(
            f"attn_implementation={NAME!r} does not support a {type(attention_mask).__name__} as a mask. "
            f"Pass a tensor broadcastable to (B, H, L, S)."
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    # As in the interface's other functions, no mask means causal, except for a single query, which is the last.
    causal = query.shape[2] > 1 and attention_mask is None and bool(causal)
    mask = _with_bias(attention_mask, position_bias, causal, query, key)
    return_matrix = output_attentions or _collects_attentions()
    out = attention(
        query,
        key,
        value,
        mask,
        dropout,
        causal and position_bias is None,
        scaling,
        enable_gqa=key.shape[1] != query.shape[1],
        softcap=softcap,
        sinks=s_aux,
        return_matrix=return_matrix,
    )
    out, matrix = out if return_matrix else (out, None)
    return out.transpose(1, 2).contiguous(), matrix


def sharded_forward(
    mesh: Any,
    placement: str,
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    sliding_window: int | None = None,
    output_attentions: bool = False,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention for a transformers model whose sequence is sharded over the ranks of a mesh.

    Args, Raises: as `forward`. A mask is refused, because it would cover only this rank's tokens; the other ranks are
    told, and raise RanksError.
    """
    compares = "position_ids" in others and getattr(module, "layer_idx", None) in (0, None)  # some models keep them
    given = {**others, "attention_mask": attention_mask, "position_bias": position_bias}
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    try:
        _check_sharded(given, query, key, causal, output_attentions)
    except OptionError:
        hooks.refuse_sharded(mesh, query, compares)
        raise
    if compares:
        hooks.check_positions(others["position_ids"], query, mesh, placement)
    mask = None
    if sliding_window is not None:
        mask, causal = sliding(sliding_window) & causal_mask() if causal else sliding(sliding_window), False
    out = hooks.sharded_attention(
        query, key, value, mask, dropout, causal, scaling, enable_gqa=key.shape[1] != query.shape[1], mesh=mesh,
        placement=placement, softcap=softcap, sinks=s_aux,
    )  # fmt: skip
    return out.transpose(1, 2).contiguous(), None


def _check_sharded(given: dict[str, Any], query: Tensor, key: Tensor, causal: bool, output_attentions: bool) -> None:
    """Refuse what a sharded sequence does not support.

    Raises:
        OptionError: names the argument.
    """
    if isinstance(given["attention_mask"], _Refused):
        raise given["attention_mask"].error
    for name, feature in (
        _NOT_HANDLED | {"attention_mask": "a mask tensor", "position_bias": "a position bias"}
    ).items():
        if given.get(name) is not None:
            raise OptionError(
                f"attn_implementation={NAME!r} does not support {feature} if the sequence is sharded. "
                f"Call the model without it."
            )
    if output_attentions or _collects_attentions():
        raise OptionError(
            "output_attentions=True needs weights of the whole sequence, which no rank has. Call "
            "clearhead.distributed.attention with return_matrix=True on the layer's query and key."
        )
    if causal and query.shape[2] != key.shape[2]:
        raise OptionError(
            f"attn_implementation={NAME!r} got {query.shape[2]} queries and {key.shape[2]} keys: a KV cache, which is "
            "not supported if the sequence is sharded. Generate after clearhead.register_with_transformers(), on one "
            "process."
        )


class _Refused:
    """Takes the place of a mask that is refused: `sharded_forward` raises the error, where it can tell other ranks."""

    def __init__(self, message: str) -> None:
        self.error = OptionError(message)


def _refuse_padding(
    *_args: Any,
    attention_mask: Tensor | None = None,
    config: Any = None,
    local_size: int | None = None,
    use_vmap: bool = False,
    **_options: Any,
) -> _Refused | None:
    """Return no mask for a sharded sequence, because each rank knows only its own tokens; refuse what needs one.

    Args:
        local_size: a window, which `sharded_forward` gets too, or the size of chunks.
        use_vmap: whether the model adds a mask function of its own.
    """
    in_chunks = local_size is not None and local_size == getattr(config, "attention_chunk_size", None)
    if use_vmap or (in_chunks and local_size != getattr(config, "sliding_window", None)):
        reason = "masks by a function of its own" if use_vmap else f"attends in chunks of {local_size} tokens"
        return _Refused(
            f"this model {reason}, which attn_implementation={NAME!r} does not support if the sequence is sharded. "
            "Use clearhead.register_with_transformers() on one process."
        )
    if attention_mask is not None and not bool(attention_mask.all()):
        return _Refused(
            "attention_mask has padding, which is not supported for a sharded sequence. Pack the batch, or pad at the "
            "end and leave those rows out of the loss."
        )
    return None


def _collects_attentions() -> bool:
    """Return whether the model around this call collects attention weights from its layers' outputs.

    GPT-2, OPT, GPT-BigCode, SigLIP and others do not pass `output_attentions` to the interface: transformers' hooks
    take the weights from the output of the attention module.
    """
    try:
        from transformers.utils.output_capturing import _active_collector
    except ImportError:
        return False
    collected = _active_collector.get()
    return collected is not None and any(name.endswith("attentions") for name in collected)


def _with_bias(
    mask: Tensor | Mask | None, bias: Tensor | None, causal: bool, query: Tensor, key: Tensor
) -> Tensor | Mask | None:
    """Combine a mask, a position bias and causality into one mask, cut to the keys if it is longer."""
    keys = key.shape[2]
    if isinstance(mask, Mask):
        if bias is None:
            return mask
        mask = mask.dense(query.shape[2], keys, device=query.device)
    mask = None if mask is None else mask[..., :keys]
    if bias is None:
        return mask
    bias = bias[..., :keys].to(query.dtype)
    if causal:
        mask = torch.ones(query.shape[2], keys, dtype=torch.bool, device=query.device).tril()
    if mask is None:
        return bias
    return bias.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else bias + mask
