"""AttentionMatrix: softmax(Q Kᵀ · scale + bias), exact, and never stored."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.arguments import checked
from clearhead.errors import DtypeError, OptionError, ShapeError, shape_text
from clearhead.kernels.problem import validate
from clearhead.masks import Mask
from clearhead.masks.kinds import from_causal_bias
from clearhead.masks.lower import split_reach
from clearhead.matrix import indexing, products
from clearhead.matrix.derived import Derived
from clearhead.matrix.logits import Logits
from clearhead.matrix.questions import sweep
from clearhead.matrix.questions.together import Questions
from clearhead.matrix.transposed import TransposedMatrix
from clearhead.spec import EVERYWHERE, Attention, Band, four_axes
from clearhead.spec.band import intersect
from clearhead.spec.validation import broadcasts


class AttentionMatrix(Questions, Derived):
    """The weights of one attention, as a matrix to multiply, slice and measure that is never stored.

    It holds the queries and keys, and computes on request. Products and entries have the matrix's own dtype, statistics
    float32 or wider; every sum is accumulated in float32 or wider. A row that may attend nothing is zero.

    Args:
        query: (B, H, L, D), floating point.
        key: (B, H_kv, S, D), query's dtype; H_kv divides H, query head h reads key head h // (H // H_kv).
        value: (B, H_kv, S, D_v), for methods that need values; None = not known.
        scale: logit multiplier, no unit; default 1/sqrt(D).
        is_causal: top-left: query i may attend keys 0..i.
        reach: (low, high): query i may attend key j only where low <= j - i <= high; None = no limit on that side. A
            sliding window or a shifted causal mask then needs no mask tensor.
        allow: boolean, broadcastable to (B, H, L, S), True = may attend; or one of clearhead.masks without a bias,
            which stays a rule.
        bias: float, broadcastable to (B, H, L, S), added to the logits.
        softcap: logits become softcap·tanh(logits / softcap) before bias and mask.
        sinks: (H,) one extra logit per head that takes weight and has no value: rows then sum to less than 1.
        lse: (B, H, L) natural log-sum-exp of the rows, sinks included, if it is already known.
        alibi: (H,) slopes: slope · |i + alibi_offset - j| is subtracted from the logit of query i and key j.
        alibi_offset: the position of query 0 among the keys.

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: the tensors do not fit each other.

    Memory: references to the arguments; nothing of size L·S.

    Example:
        >>> q = torch.eye(3).view(1, 1, 3, 3)
        >>> A = AttentionMatrix(q, q, scale=0.0, is_causal=True)
        >>> A.shape
        (1, 1, 3, 3)
        >>> A[0, 0, 1]
        tensor([0.5000, 0.5000, 0.0000])
        >>> A.received()[0, 0]
        tensor([1.8333, 0.8333, 0.3333])
        >>> (A @ torch.eye(3))[0, 0, 2]
        tensor([0.3333, 0.3333, 0.3333])
    """

    _source: Any = None  # set for a matrix of a record: computes `why`

    @checked(convert={"allow": from_causal_bias})
    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        *,
        value: Tensor | None = None,
        scale: float | None = None,
        is_causal: bool = False,
        allow: Tensor | Mask | None = None,
        bias: Tensor | None = None,
        softcap: float | None = None,
        sinks: Tensor | None = None,
        lse: Tensor | None = None,
        reach: Band = EVERYWHERE,
        alibi: Tensor | None = None,
        alibi_offset: int = 0,
    ) -> None:
        kernels.refuse_tracing("an AttentionMatrix")
        if len({tensor.dtype for tensor in (query, key, value) if tensor is not None}) > 1:
            query, key, value = kernels.autocast(query, key, value)
        scale = 1.0 / math.sqrt(max(query.shape[-1], 1)) if scale is None else scale
        rule, reach, allow = _split_mask(allow, reach, query, key)
        attention = Attention.of(
            scale, is_causal=is_causal, reach=reach, first_query=alibi_offset, rule=rule, allow=allow, bias=bias,
            softcap=softcap, sinks=sinks, alibi=alibi,
        )  # fmt: skip
        self._describe(query, key, attention, value, lse)

    @classmethod
    def of(
        cls, query: Tensor, key: Tensor, attention: Attention, *, value: Tensor | None = None, lse: Tensor | None = None
    ) -> AttentionMatrix:
        """Return the matrix of an attention described by `clearhead.spec.Attention`, before dropout."""
        matrix = object.__new__(cls)
        matrix._describe(query, key, attention, value, lse)
        return matrix

    @classmethod
    def of_known(cls, query: Tensor, key: Tensor, attention: Attention) -> AttentionMatrix:
        """Return the matrix without validation, for inputs like those validated before, as in each step of a decode."""
        matrix = object.__new__(cls)
        matrix._logits, matrix._value, matrix._lse = Logits(query, key, attention), None, None
        return matrix

    def _describe(
        self, query: Tensor, key: Tensor, attention: Attention, value: Tensor | None, lse: Tensor | None
    ) -> None:
        """Validate the inputs and keep them."""
        validate(kernels.Problem(query, key, key if value is None else value, replace(attention, rule=None)))
        if lse is not None and lse.shape != query.shape[:3]:
            raise ShapeError(
                f"lse must have one number per row, shape {tuple(query.shape[:3])} "
                f"({shape_text('lse', lse.shape, 'B,H,L')}; {shape_text('query', query.shape, 'B,H,L,D')}). "
                "Give the lse of this attention, or None."
            )
        if lse is not None and not lse.is_floating_point():
            raise DtypeError(f"lse is {lse.dtype}, expected a floating-point dtype. Give the lse of this attention.")
        self._logits = Logits(query, key, attention.with_four_axes())
        self._value = value
        self._lse = lse

    def __repr__(self) -> str:
        batch, heads, rows, cols = self.shape
        return f"AttentionMatrix(B={batch}, H={heads}, L={rows}, S={cols}, {self.dtype}, {self.device})"

    # Properties

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of entries and products: that of query."""
        return self._logits.query.dtype

    @property
    def device(self) -> torch.device:
        """The device of queries, keys and every result."""
        return self._logits.query.device

    @property
    def lse(self) -> Tensor:
        """The log-sum-exp of each row, (B, H, L), float32 or wider, natural log, sinks included; -inf where empty.

        Computed once, by one forward pass. If it needs a gradient it is computed each time, as part of the graph.
        """
        return self._known_lse()

    @property
    def mT(self) -> TransposedMatrix:
        """The transpose, (B, H, S, L), also lazy: `A.mT @ Y`."""
        return TransposedMatrix(self)

    # Products and entries

    @checked()
    def __matmul__(self, columns: Tensor) -> Tensor:
        """Return A @ X, as torch.matmul: X is (S,), (S, W) or (..., S, W) with leading axes that broadcast to (B, H).

        Returns:
            (B, H, L) or (B, H, L, W), in the wider of the two dtypes.

        Memory: O((L + S)·(D + W)) per head.
        """
        dtype = torch.promote_types(self.dtype, columns.dtype)
        wide = self._wide
        operand, vector = self._columns(columns, wide, axis=3)
        if operand.shape[1] == 1:
            operand = operand.expand(-1, wide.key.shape[1], -1, -1)
        out = products.forward(wide, operand, self._lse_in(wide))[0].to(dtype)
        return out.squeeze(-1) if vector else out

    def __getitem__(self, key: Any) -> Tensor:
        """Return entries, rows, columns or blocks as a dense tensor, equal to `A.to_dense()[key]`.

        Raises:
            TooLargeError: the result takes more than 256 MiB.
        """
        return indexing.index(self._wide, self._wide_lse, key).to(self.dtype)

    def to_dense(self, *, limit: int | None = indexing.LIMIT) -> Tensor:
        """Return the whole matrix as a dense tensor, (B, H, L, S).

        Args:
            limit: the most bytes the tensor may take; default 256 MiB, None for no limit.

        Raises:
            TooLargeError: the tensor would take more.
        """
        remedy = (
            "Take a part, A[b, h, rows, cols], or a map, A.pooled(rows, cols); or allow it with "
            f"to_dense(limit={math.prod(self.shape) * self.dtype.itemsize})"
        )
        indexing.guard(self.shape, self.dtype, limit, "the dense matrix", remedy)
        wide = self._wide
        if self._lse is None and (both := indexing.whole(wide)) is not None:
            weights, self._lse = both
            return weights.to(self.dtype)
        return indexing.outer(wide, self._wide_lse, indexing.everything(wide)).to(self.dtype)

    def diagonal(self, offset: int = 0) -> Tensor:
        """Return the weights at (i, i + offset), (B, H, n), as `torch.diagonal`: offset -1 is the previous position.

        In a part made by `rows(start, stop)` i counts from its first row: there `start - 1` is the previous position.
        """
        _, _, rows, keys = self.shape
        first = torch.arange(max(0, -offset), max(0, -offset, min(rows, keys - offset)), device=self.device)
        return self[:, :, first, first + offset]

    def why(self, query: int, key: int, *, head: int = 0, batch: int = 0) -> Any:
        """Split one logit by the parts of the residual stream that its query and its key are computed from.

        The parts are the token's embedding, the position's, each earlier head, each earlier MLP, and the biases. They
        sum to the logit, up to rounding, because a norm is linear once its divisor is known. The model runs once more
        on the same input.

        Args:
            query, key: indices of the query and the key in the matrix.
            head, batch: indices of the head and the batch entry in the matrix.

        Returns:
            `capture.attribution.why.Why`: `.table` (n, n), `.query_parts`, `.key_parts`, `.strongest()`, `.logit`.

        Raises:
            OptionError: the matrix does not come from a record, or comes from a step of a generation.
            PlaceError: there is no such query, key, head or batch entry, or the mask excludes the pair.
            CaptureError: the model is not built like Llama, GPT-2 or BERT; the message says what is not known.

        Source: Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits" (the QK circuit); Wang et al.
        2022, "Interpretability in the Wild", section 3 (the inputs of a head's queries and keys).
        """
        if self._source is None:
            raise OptionError(
                "why() needs the model, and this matrix has none. Call it on a matrix of one recorded forward pass: "
                "`with observe(model) as record: model(…)`, then record[name].why(i, j)."
            )
        given = {"query": query, "key": key, "head": head, "batch": batch}
        sizes = (*self.shape[2:], self.shape[1], self.shape[0])
        places = [
            indexing.position(name, place, size) for (name, place), size in zip(given.items(), sizes, strict=True)
        ]
        indexing.refuse_masked(self._logits, *places)
        return self._source.why(self, *places)

    # Internals

    def _known_lse(self, progress: sweep.Progress | None = None) -> Tensor:
        if self._lse is not None:
            return self._lse
        lse = sweep.normaliser(self._wide, progress)
        if not lse.requires_grad:
            self._lse = lse
        return lse

    def _lse_in(self, wide: Logits) -> Tensor | None:
        return None if self._lse is None else self._lse.to(wide.query.dtype)

    def _columns(self, columns: Tensor, wide: Logits, *, axis: int) -> tuple[Tensor, bool]:
        """Return an operand as (B, 1 or H, n, W) in the dtype to compute in, and whether it was a vector."""
        if not isinstance(columns, Tensor) or not columns.is_floating_point():
            kind = columns.dtype if isinstance(columns, Tensor) else type(columns).__name__
            raise DtypeError(
                f"the matrix can be multiplied only by a floating-point tensor, got {kind}. Convert it with "
                f".to({self.dtype})."
            )
        vector = columns.dim() == 1
        operand = columns[:, None] if vector else columns
        size, letter = self.shape[axis], "BHLS"[axis]
        if operand.shape[-2:-1] != (size,) or not broadcasts(operand.shape[:-2], self.shape[:2]):
            raise ShapeError(
                f"the matrix has shape {self.shape}, axes B,H,L,S, and cannot be multiplied by a tensor of shape "
                f"{tuple(columns.shape)}. Give ({letter},), ({letter},W), (H,{letter},W) or (B,H,{letter},W) "
                f"with {letter}={size}."
            )
        operand = four_axes(operand).to(wide.query.dtype)
        return operand.expand(self.shape[0], -1, -1, -1), vector


def _split_mask(
    allow: Tensor | Mask | None, reach: Band, query: Tensor, key: Tensor
) -> tuple[Mask | None, Band, Tensor | None]:
    """Split a mask into (a rule or None, the reach intersected with its band, a tensor or None)."""
    if not isinstance(allow, Mask):
        return None, reach, allow
    full = (*query.shape[:3], key.shape[2])
    if any(size is not None and size != own for size, own in zip(allow.sizes(), full, strict=True)):
        raise ShapeError(
            f"allow={allow!r} is for B,H,L,S = {allow.sizes()}, but the matrix has {full}. Make it for these sizes."
        )
    if allow.bias is not None:
        raise OptionError(f"allow={allow!r} has a bias. Give its .allow part, and the bias as alibi or bias.")
    own, rest = split_reach(allow)
    return rest, intersect(reach, own), None
