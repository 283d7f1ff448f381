"""`clearhead.MultiheadAttention`: a drop-in for torch.nn.MultiheadAttention with further options."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parameter import Parameter

from clearhead import arguments, kernels
from clearhead.kernels.calls.prepare import compiled_mask
from clearhead.masks import Mask
from clearhead.masks.kinds import from_causal_bias
from clearhead.multihead import varlen
from clearhead.multihead.cache import KVCache
from clearhead.multihead.dense_weights import dense as dense_weights
from clearhead.multihead.functional import are_plain
from clearhead.multihead.fused import fused, matrix_of
from clearhead.multihead.layer import checks, module_masks, projections
from clearhead.multihead.layer.shared_heads import load_shared_heads
from clearhead.multihead.positions import Rotary
from clearhead.spec import Attention


class MultiheadAttention(torch.nn.MultiheadAttention):
    """Multi-head attention with learned projections, a drop-in for torch.nn.MultiheadAttention.

    Constructor, parameters, initialisation, state_dict, masks (True = may NOT attend, the opposite of
    `clearhead.attention`) and weights, averaged or per head, are the same as torch's. One difference: a query that may
    attend nothing gives 0 where torch gives NaN (docs/differences.md).

    Args:
        embed_dim: width E of query and output; num_heads divides it.
        num_heads: H.
        dropout: probability that a weight is dropped, in training.
        bias: whether the projections have biases.
        add_bias_kv: append one learned key and value.
        add_zero_attn: append a key and value of zeros.
        kdim, vdim: widths of key and value; default embed_dim.
        batch_first: tensors are (B, L, E) instead of (L, B, E).
        device, dtype: of the parameters.
        num_kv_heads: heads of keys and values, which divides num_heads (grouped queries); default num_heads.
        rotary: a Rotary, or True for Rotary(head_dim): rotates queries and keys by their positions.
        weights: "dense", or "matrix" to get an AttentionMatrix, per head and never stored, instead of the weights.

    Raises:
        ShapeError, OptionError: num_heads does not divide embed_dim (lists what would), or one of them is not positive.

    Source: Vaswani et al. 2017, section 3.2.2; Ainslie et al. 2023 (num_kv_heads); Su et al. 2021 (rotary).

    Example:
        >>> layer = MultiheadAttention(12, 3, batch_first=True)
        >>> x = torch.randn(2, 5, 12)
        >>> out, weights = layer(x, x, x)
        >>> out.shape, weights.shape
        (torch.Size([2, 5, 12]), torch.Size([2, 5, 5]))
        >>> layer(x, x, x, weights="matrix")[1].entropy().shape
        torch.Size([2, 3, 5])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        num_kv_heads: int | None = None,
        rotary: Rotary | bool | None = None,
        weights: Literal["dense", "matrix"] = "dense",
    ) -> None:
        checks.sizes(embed_dim, num_heads, num_kv_heads)
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )
        self.add_extras(num_kv_heads, rotary, weights)
        if self.num_kv_heads != num_heads:
            self._share_key_heads()

    def add_extras(
        self,
        num_kv_heads: int | None = None,
        rotary: Rotary | bool | None = None,
        weights: Literal["dense", "matrix"] = "dense",
    ) -> None:
        """Set the attributes that this class has and torch.nn.MultiheadAttention does not."""
        self.num_kv_heads = self.num_heads if num_kv_heads is None else num_kv_heads
        self.rotary = Rotary(self.head_dim) if rotary is True else rotary or None
        self.weights = checks.weights_kind(weights)
        # Unless the module has a hook, torch's encoder layers skip `forward` for a C++ path that gives NaN in empty
        # rows and has none of the extras.
        self.register_forward_pre_hook(_no_op_hook)

    def _share_key_heads(self) -> None:
        """Replace the projections of key and value by ones with num_kv_heads heads, newly initialised."""
        narrow = self.num_kv_heads * self.head_dim
        like = self.out_proj.weight
        if self._qkv_same_embed_dim:
            self.in_proj_weight = Parameter(like.new_empty(self.embed_dim + 2 * narrow, self.embed_dim))
        else:
            self.k_proj_weight = Parameter(like.new_empty(narrow, self.kdim))
            self.v_proj_weight = Parameter(like.new_empty(narrow, self.vdim))
        if self.in_proj_bias is not None:
            self.in_proj_bias = Parameter(like.new_empty(self.embed_dim + 2 * narrow))
        if self.bias_k is not None:
            self.bias_k, self.bias_v = (Parameter(like.new_empty(1, 1, narrow)) for _ in range(2))
        self._reset_parameters()

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | Mask | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        # Not keyword-only: torch.onnx.export(dynamo=False) passes every argument by position.
        weights: Literal["dense", "matrix"] | None = None,
        cache: KVCache | None = None,
    ) -> tuple[Tensor, Any]:
        """Attend from query to key and value.

        Args:
            query: (L, B, E), (B, L, E) with batch_first, or (L, E); or a nested tensor (B, j, E) for all three.
            key, value: (S, B, kdim), (S, B, vdim); the same three forms.
            key_padding_mask: (B, S), or (S,). Bool: True = leave this key out. Float: added to the logits.
            need_weights: also return the weights, which takes O(B·H·L·S) memory unless they are an AttentionMatrix.
            attn_mask: (L, S) or (B·H, L, S). Bool: True = may NOT attend. Float: added to the logits. Or one of
                clearhead.masks, which say where to attend.
            average_attn_weights: average the returned weights over heads. (An AttentionMatrix is always per head.)
            is_causal: a promise that attn_mask is the causal mask, which allows a fast path. With a cache, no mask is
                needed: query i attends all positions up to its own.
            weights: "matrix" or "dense" for this call; default as constructed.
            cache: a KVCache, to which this call's keys and values are appended. Masks then cover all keys held.
        Returns:
            The output, in the layout of query, and the weights (B, L, S), (B, H, L, S) if not averaged, or None.
        Raises:
            ShapeError, DtypeError, OptionError: an input does not fit; the message names it and how to fix it.
            CacheFullError: the cache has no room. Nothing was written.
        """
        options = {
            "key_padding_mask": key_padding_mask, "need_weights": need_weights, "attn_mask": attn_mask,
            "average_attn_weights": average_attn_weights, "is_causal": is_causal, "weights": weights, "cache": cache,
        }  # fmt: skip
        if checks.is_recorded(query):
            return checks.leaf(self, query, key, value, **options)
        if not (torch.compiler.is_compiling() or are_plain(query, key, value, key_padding_mask, attn_mask)):
            return _handle(MultiheadAttention.forward, (self, query, key, value), options)
        kind = self.weights if weights is None else checks.weights_kind(weights)
        if need_weights and kind == "matrix":
            kernels.refuse_tracing('weights="matrix", which returns an AttentionMatrix instead of a tensor')
        if query.is_nested or key.is_nested or value.is_nested:
            checks.nested(self, query, key, value, key_padding_mask, attn_mask, cache)
            padded, padding, lengths = varlen.to_padded(query)
            out, matrix = self.forward(
                padded, padded, padded, padding, need_weights, None, average_attn_weights, False, weights=kind
            )
            return varlen.to_nested(out, lengths, query.layout), matrix
        checks.inputs(self, query, key, value)
        batched, axis = query.dim() == 3, 0 if self.batch_first else 1
        if not batched:
            query, key, value = (x.unsqueeze(axis) for x in (query, key, value))
        q, k, v = projections.inward(self, query, key, value)
        before = 0 if cache is None else cache.length  # the position of the first new key
        if self.rotary is not None:
            q, k = self.rotary(q, start=before), self.rotary(k, start=before)
        if cache is not None:
            k, v = cache.append(k, v)
            if need_weights and kind == "matrix":  # the cache may overwrite them before the matrix is used
                k, v = k.clone(), v.clone()
        dense = need_weights and kind == "dense"
        masked = module_masks.ModuleMasks(key_padding_mask, compiled_mask(attn_mask), is_causal, cache, batched)
        k, v, extra = self._extra_keys(k, v)
        q, k, v = kernels.autocast(q, k, v)  # a learned key, rotary or cache may have another dtype
        dropout_p = float(self.dropout) if self.training else 0.0
        problem = kernels.Problem(q, k, v, Attention(1 / math.sqrt(self.head_dim), dropout_p=dropout_p))
        try:
            problem = masked.apply(problem, extra, dense=dense, matrix=need_weights)
            heads, matrix = self._attend(problem, need_weights, dense, average_attn_weights)
        except BaseException:
            if cache is not None:
                cache.crop(before)  # undo the append
            raise
        out = projections.outward(self, heads)
        if dense:
            matrix = matrix if batched else matrix.squeeze(0)
        return out if batched else out.squeeze(axis), matrix

    def _attend(self, problem: kernels.Problem, need_weights: bool, dense: bool, average: bool) -> tuple[Tensor, Any]:
        """Return each head's output, (B, H, L, D), and the weights in the requested form."""
        if dense:
            return dense_weights(problem, average)
        result = fused(problem)
        return result.out, matrix_of(problem, result.lse) if need_weights else None

    def _extra_keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Append the learned key and value, and the zeros, if the module has them; return (k, v, how many)."""
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            shape = (1, self.num_kv_heads, 1, self.head_dim)
            learned = (b.view(shape).expand(k.shape[0], -1, -1, -1) for b in (self.bias_k, self.bias_v))
            k, v = (torch.cat(pair, 2) for pair in zip((k, v), learned, strict=True))
            extra += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        return k, v, extra

    def __prepare_scriptable__(self) -> torch.nn.Module:
        """Return the module that torch.jit.script compiles instead: torch's own, with the same parameters."""
        return checks.scriptable(self)

    @classmethod
    def from_shared_heads(
        cls, source: torch.nn.Module | Mapping[str, Tensor], num_heads: int | None = None, *, scale: float | None = None
    ) -> "MultiheadAttention":
        """Convert the textbook class that applies one Linear(head_dim, head_dim) to all heads, exactly.

        Args:
            source: the module, or its state_dict, with `values`, `keys`, `queries` (H·D inputs seen as H heads of D,
                weights (D, D)) and `fc_out` (weights (E, H·D)).
            num_heads: H; default `source.heads`.
            scale: the logit multiplier of the source. Default: for a module, the one measured by running a copy of it
                on a probe; for a state_dict, 1/sqrt(head_dim).
        Returns:
            A batch_first module whose projections are block-diagonal. It gives the same output for
            module(query, keys, values); the source's own argument order is (values, keys, query, mask).
        Raises:
            OptionError, ShapeError: a weight is missing or does not fit; or the module does not run, or computes
                something other than attention with a logit scale.

        Example:
            >>> weights = {n + ".weight": torch.randn(4, 4) for n in ("values", "keys", "queries")}
            >>> layer = MultiheadAttention.from_shared_heads(weights | {"fc_out.weight": torch.randn(12, 12)}, 3)
            >>> layer.in_proj_weight.count_nonzero().item()  # 3·(4·4)·3 of 3·12·12; docs/differences.md
            144
        """
        return load_shared_heads(cls, source, num_heads, scale)


_handle = arguments.ArgumentHandler(
    MultiheadAttention.forward, nested=("query", "key", "value"), convert={"attn_mask": from_causal_bias}
)


def _no_op_hook(module: torch.nn.Module, args: Any) -> None:
    """Do nothing: the presence of a hook makes torch call `forward` (see `add_extras`)."""
