"""LayerParts: q, k, v and z of a record's layers, what each head adds, and its scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from clearhead.capture.head_outputs.contributions import Contributions
from clearhead.capture.head_outputs.hook_cache import HookCache, hook_cache
from clearhead.capture.scoring.record_scores import score_calls
from clearhead.capture.scoring.tables import as_table
from clearhead.errors import CaptureError, OptionError
from clearhead.matrix import AttentionMatrix

if TYPE_CHECKING:
    from clearhead.capture.record import Record


class LayerParts(Mapping[str, AttentionMatrix]):
    """Module name -> AttentionMatrix in layer order, with the tensors and scores of heads. Record inherits it."""

    _projections: dict[str, Any]

    def q(self, layer: int | str) -> Tensor:
        """(B, H, L, D): the queries of a layer's last call; the layer by its name, or by its index in the record."""
        return self._last(layer).q

    def k(self, layer: int | str) -> Tensor:
        """(B, H_kv, S, D): its keys, as grouped as the model has them (`AttentionMatrix.per_query_head`)."""
        return self._last(layer).k

    def v(self, layer: int | str) -> Tensor | None:
        """(B, H_kv, S, D_v): its values, as grouped as the model has them; None without `observe(values=True)`."""
        return self._last(layer).v

    def z(self, layer: int | str) -> Tensor:
        """(B, H, L, D_v): its heads' outputs, before the output projection.

        Raises:
            OptionError: the values were not kept; record with `observe(model, values=True)`.
        """
        return self._last(layer).z

    def contributions(self, layer: int | str) -> Contributions:
        """Return what each head of a layer adds to the residual stream, (B, H, L, E), computed on use.

        The output projection's weights are those at the time of this call.

        Args:
            layer: the layer's name, or its index in the record.

        Raises:
            OptionError: the values were not kept; record with `observe(model, values=True)`.
            CaptureError: no linear layer took the heads' outputs, merged, as its input: they are gated or normalised
                first, or the attention was found by softmax tracing.

        Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits".
        """
        name = self._name(layer)
        z = self._last(name).z
        return Contributions(z, self._projection(name).weight(z.shape[-1]))

    def value_weighted(self, layer: int | str) -> AttentionMatrix:
        """The norms ‖aᵢⱼ·W_O vⱼ‖ of a layer's edges, (B, H, L, S), never stored, through the projection it has now.

        It is `record[layer].value_weighted(out_weight=…)` with the part of the output projection that each recorded
        head meets: of an nn.Linear, a Conv1D (GPT-2) or nn.MultiheadAttention. The projection's bias is not in it.

        Raises:
            OptionError, CaptureError: as of `contributions`.

        Source: Kobayashi et al. 2020, "Attention is Not Only a Weight", section 2.2.

        Example:
            >>> import torch
            >>> from clearhead.capture import observe
            >>> layer, x = torch.nn.MultiheadAttention(6, 2, batch_first=True), torch.randn(1, 5, 6)
            >>> with torch.no_grad(), observe(layer, values=True) as record:
            ...     out = layer(x, x, x)
            >>> record.value_weighted(0).shape
            (1, 2, 5, 5)
        """
        name = self._name(layer)
        width = self._last(name).z.shape[-1]
        return self[name].value_weighted(out_weight=self._projection(name).weight(width))

    def _projection(self, name: str) -> Any:
        """The output projection of a layer.

        Raises:
            CaptureError: it is not known.
        """
        projection = self._projections.get(name)
        if projection is None:
            raise CaptureError(
                f"the output projection of {name!r} is not known: no linear layer took its heads' outputs, merged, as "
                "its input. Multiply record.z(layer) by the weights yourself."
            )
        return projection

    def to_transformer_lens(self, *, rotary: bool | None = None) -> HookCache:
        """Return the record under TransformerLens' names, like the cache of `run_with_cache`; computed on use.

        "blocks.0.attn.hook_pattern" and "…hook_attn_scores" are (B, H, L, S), "…hook_q" (B, L, H, D), "…hook_k"
        (B, S, H_kv, D); rotated queries and keys are "…hook_rot_q" and "…hook_rot_k". With `observe(values=True)` also
        "…hook_v", "…hook_z" (B, L, H, D_v) and, where the output projection is known, "…hook_result" (B, L, H, E).
        An encoder-decoder has "encoder.0.attn…", "decoder.0.attn…" and "decoder.0.cross_attn…".

        Args:
            rotary: whether the model rotates queries and keys; None: read it from its modules and configuration.

        Raises, when a tensor is asked for:
            TooLargeError: the pattern or the attention scores take more than 256 MiB.

        Example:
            >>> import torch
            >>> from clearhead.capture.record import Record
            >>> q = torch.randn(1, 2, 5, 3)
            >>> cache = Record.of({"layers.0.attention": AttentionMatrix(q, q)}).to_transformer_lens()
            >>> list(cache)[0], cache["pattern", 0].shape
            ('blocks.0.attn.hook_q', torch.Size([1, 2, 5, 5]))
        """
        return hook_cache(cast("Record", self), rotary=rotary)

    def scores(
        self,
        token_ids: Tensor | None = None,
        special: Sequence[bool] | None = None,
        *,
        as_: str | None = None,
        decoder_token_ids: Tensor | None = None,
        decoder_special: Sequence[bool] | None = None,
    ) -> Any:
        """Score every head: the head scores of `capture.score_record`, as a list or as a table.

        Args:
            token_ids, special, decoder_token_ids, decoder_special: as in `capture.score_record`; without token ids,
                scores that need tokens are NaN.
            as_: None for a list of HeadScores; "pandas" or "polars" for a DataFrame with one row per head; "xarray" for
                a Dataset over (layer, head).

        Raises:
            OptionError: as_ is none of these, or the token ids do not fit the record.
            ExtraError: that library is not installed; the message has the pip command.
        """
        rows = score_calls(
            cast("Record", self),
            token_ids,
            special,
            decoder_token_ids=decoder_token_ids,
            decoder_special=decoder_special,
        )
        return rows if as_ is None else as_table(rows, as_)

    def _name(self, layer: int | str) -> str:
        if isinstance(layer, str):
            return layer
        names = list(self)
        if isinstance(layer, bool) or not isinstance(layer, int) or not -len(names) <= layer < len(names):
            known = f"0..{len(names) - 1}, or a name: {', '.join(names)}" if names else "none: nothing was recorded"
            raise OptionError(f"there is no layer {layer!r} in the record. Its layers: {known}.")
        return names[layer]

    def _last(self, layer: int | str) -> AttentionMatrix:
        return self[self._name(layer)]
