"""`clearhead.MultiheadAttention`: torch.nn.MultiheadAttention, argument for argument."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.errors import OptionError
from clearhead.multihead import door, module_checks, weights
from clearhead.multihead.functional import fused


class MultiheadAttention(torch.nn.MultiheadAttention):
    """Attention over `num_heads` heads, with learned projections in and out.

    Everything torch.nn.MultiheadAttention has: constructor, parameters and their initialisation, state_dict both
    ways, masks (True = may NOT attend, the opposite of `clearhead.attention`), averaged or per-head weights. What
    differs: a query that may attend nothing gives 0 where torch gives NaN (docs/differences.md).

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

    Raises:
        ShapeError, OptionError: num_heads does not divide embed_dim (says what would), or one of them is not positive.

    Source: Vaswani et al. 2017, section 3.2.2.

    Example:
        >>> layer = MultiheadAttention(12, 3, batch_first=True)
        >>> x = torch.randn(2, 5, 12)
        >>> out, weights = layer(x, x, x)
        >>> out.shape, weights.shape
        (torch.Size([2, 5, 12]), torch.Size([2, 5, 5]))
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
    ) -> None:
        module_checks.sizes(embed_dim, num_heads)
        super().__init__(
            embed_dim, num_heads, dropout, bias, add_bias_kv, add_zero_attn, kdim, vdim, batch_first, device, dtype
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from query to key and value.

        Args:
            query: (L, B, E), (B, L, E) with batch_first, or (L, E).
            key, value: (S, B, kdim), (S, B, vdim); the same three forms.
            key_padding_mask: (B, S), or (S,). Bool: True = leave this key out. Float: added to the logits.
            need_weights: also return the weights, which then are stored: O(B·H·L·S) memory.
            attn_mask: (L, S) or (B·H, L, S). Bool: True = may not attend. Float: added to the logits.
            average_attn_weights: average the returned weights over heads.
            is_causal: a promise that attn_mask is the causal mask, which allows the faster way.
        Returns:
            The output, in query's form, and the weights (B, L, S), (B, H, L, S) if not averaged, or None.
        Raises:
            ShapeError, DtypeError, OptionError: says which input does not fit, and how to fix it.
        """
        module_checks.inputs(self, query, key, value)
        batched, axis = query.dim() == 3, 0 if self.batch_first else 1
        if not batched:
            query, key, value = query.unsqueeze(axis), key.unsqueeze(axis), value.unsqueeze(axis)
        q, k, v = (self._split_heads(x) for x in self._project(query, key, value))
        full = (*q.shape[:3], k.shape[2])
        if is_causal and attn_mask is None:
            raise OptionError(
                "is_causal=True without attn_mask: it only promises that attn_mask is causal. Pass the mask, "
                "torch.nn.Transformer.generate_square_subsequent_mask(L), as well."
            )
        # As in torch: the promise is used where it saves something, and the mask counts everywhere else.
        hinted = is_causal and key_padding_mask is None and not need_weights and self.bias_k is None
        hinted = hinted and not self.add_zero_attn
        allow, bias = door.masks(key_padding_mask, None if hinted else attn_mask, full, query, batched)
        k, v, extra = self._extra_keys(k, v)
        allow, bias = door.extend(allow, extra, True), door.extend(bias, extra, 0)
        dropout_p = self.dropout if self.training else 0.0
        problem = kernels.Problem(q, k, v, 1 / math.sqrt(self.head_dim), hinted, allow, bias)
        if need_weights:
            heads, matrix = weights.dense(problem, dropout_p)
            matrix = matrix.mean(1) if average_attn_weights else matrix
        else:
            heads, matrix = fused(problem, dropout_p).out, None
        out = self.out_proj(self._join_heads(heads))
        if batched:
            return out, matrix
        return out.squeeze(axis), None if matrix is None else matrix.squeeze(0)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """The three input projections, in the caller's layout."""
        if query is key and key is value and self._qkv_same_embed_dim:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        matrices = (
            self.in_proj_weight.chunk(3)
            if self._qkv_same_embed_dim
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(map(F.linear, (query, key, value), matrices, biases))

    def _split_heads(self, x: Tensor) -> Tensor:
        """(B, L, H·D) or (L, B, H·D) -> (B, H, L, D), a view."""
        x = x.unflatten(-1, (-1, self.head_dim))
        return x.transpose(1, 2) if self.batch_first else x.permute(1, 2, 0, 3)

    def _join_heads(self, x: Tensor) -> Tensor:
        """(B, H, L, D) -> (B, L, H·D) or (L, B, H·D)."""
        return (x.transpose(1, 2) if self.batch_first else x.permute(2, 0, 1, 3)).flatten(-2)

    def _extra_keys(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Append the learned key and value, and the zeros, where the module has them: (k, v, how many)."""
        extra = 0
        if self.bias_k is not None and self.bias_v is not None:
            learned = (
                b.view(1, self.num_heads, 1, self.head_dim).expand(len(k), -1, -1, -1)
                for b in (self.bias_k, self.bias_v)
            )
            k, v = (torch.cat(pair, 2) for pair in zip((k, v), learned, strict=True))
            extra += 1
        if self.add_zero_attn:
            k, v = F.pad(k, (0, 0, 0, 1)), F.pad(v, (0, 0, 0, 1))
            extra += 1
        return k, v, extra
