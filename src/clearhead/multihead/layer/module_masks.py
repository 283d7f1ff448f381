"""Convert the module's masks: torch.nn.MultiheadAttention's True = may not attend becomes True = may attend.

All code below this file uses the second meaning (docs/decisions/0001).
"""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.errors import DeviceError, DtypeError, OptionError, ShapeError, shape_text
from clearhead.kernels import Problem, modes, untraced
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.prepare import matrix_takes, under_mask
from clearhead.masks import Mask, from_dense
from clearhead.masks.kinds import Corner
from clearhead.multihead.cache import KVCache
from clearhead.spec import Attention


@dataclasses.dataclass(frozen=True, slots=True)
class ModuleMasks:
    """The masks of one call to the module.

    Attributes:
        key_padding_mask, attn_mask, is_causal, cache: the arguments of the module's forward.
        batched: whether the caller's tensors had a batch axis.
    """

    key_padding_mask: Tensor | None
    attn_mask: Tensor | Mask | None
    is_causal: bool
    cache: KVCache | None
    batched: bool

    def apply(self, problem: Problem, extra: int, *, dense: bool, matrix: bool) -> Problem:
        """Return the problem with the masks applied; every query may attend its last `extra` keys.

        Args:
            dense, matrix: whether the call returns dense weights, or any weights; these need the mask as tensors.
        """
        (batch, heads, length, _), keys = problem.query.shape, problem.key.shape[2] - extra
        full = (batch, heads, length, keys)
        rule = self._rule(length)
        if self.is_causal and self.attn_mask is None and self.cache is None:
            raise OptionError(
                "is_causal=True without attn_mask: is_causal only promises that attn_mask is causal. Pass the mask "
                "too, torch.nn.Transformer.generate_square_subsequent_mask(L), or clearhead.masks.causal()."
            )
        # As in torch, the promise is used only where it saves work; everywhere else the mask counts.
        promised = self.is_causal and self.cache is None and self.key_padding_mask is None and not dense and extra == 0
        promised = promised and rule is None
        attn_mask = None if promised or isinstance(self.attn_mask, Mask) else self.attn_mask
        allow, bias = masks(self.key_padding_mask, attn_mask, full, problem.query, self.batched)
        if rule is None:
            return _with_masks(problem, promised, extend(allow, keys, extra, True), extend(bias, keys, extra, 0))
        checks.rule(rule, problem.query, problem.key[:, :, :keys], False)
        if extra == 0 and bias is None and (allow is None or allow.shape[2] == 1):
            rule = rule if allow is None else rule & from_dense(allow)
            return under_mask(problem, rule, dense or (matrix and not matrix_takes(rule)))
        if extra == 0:
            problem = under_mask(problem, rule, True)
            return dataclasses.replace(problem, attention=problem.attention.under(Attention(allow=allow, bias=bias)))
        # The rule does not cover the extra keys, so it becomes tensors.
        device = problem.query.device
        ruled = None if rule.allow is None else rule.allow.block(range(length), range(keys), device=device)
        added = None if rule.bias is None else rule.bias.bias_block(range(length), range(keys), device=device)
        allow, bias = _both(allow, ruled), _sum(bias, added)
        return _with_masks(problem, False, extend(allow, keys, extra, True), extend(bias, keys, extra, 0))

    def _rule(self, length: int) -> Mask | None:
        """Return the mask as a rule, if the caller passed one or a cache determines it; else None."""
        rule = self.attn_mask if isinstance(self.attn_mask, Mask) else None
        if self.cache is None:
            return rule
        if rule is not None:
            if isinstance(rule, Corner):  # it already aligns this call's queries with all keys held
                return rule
            return rule.shifted(self.cache.held - length)
        masked = self.cache.window is not None or (self.is_causal and self.attn_mask is None)
        # A single query at the end may attend every key held.
        return self.cache.mask(length) if masked and length > 1 else None


def _with_masks(problem: Problem, is_causal: bool, allow: Tensor | None, bias: Tensor | None) -> Problem:
    return problem.change(band_high=0 if is_causal else None, allow=allow, bias=bias)


def _both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a & b


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a + b


def masks(
    key_padding_mask: Tensor | None, attn_mask: Tensor | None, full: Sequence[int], query: Tensor, batched: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Validate the two masks and convert them to (allow, bias), each broadcastable to (B, H, L, S).

    Args:
        key_padding_mask: (B, S), or (S,) unbatched.
        attn_mask: (L, S) or (B·H, L, S).
        full: (B, H, L, S).
        query: for its dtype and device.
        batched: whether the caller's tensors had a batch axis.
    Memory: one tensor of the masks' own size; B times that if both are float.
    """
    batch, heads, length, keys = full
    allow = bias = None
    if attn_mask is not None:
        _check("attn_mask", attn_mask, [(length, keys), (batch * heads, length, keys)], "L,S or B·H,L,S", query)
        rows = attn_mask[None, None] if attn_mask.dim() == 2 else attn_mask.view(batch, heads, length, keys)
        allow, bias = (~rows, None) if rows.dtype == torch.bool else (None, rows)
    if key_padding_mask is None:
        return allow, bias
    expected = (batch, keys) if batched else (keys,)
    _check("key_padding_mask", key_padding_mask, [expected], "B,S" if batched else "S", query)
    padding = key_padding_mask.view(batch, 1, 1, keys)
    if padding.dtype == torch.bool:
        if allow is None:
            return ~padding, bias
        # Both are bool. As a bias the padding takes B·S numbers; combined with the mask it would take B·L·S.
        return allow, torch.zeros_like(padding, dtype=query.dtype).masked_fill(padding, -torch.inf)
    return allow, padding if bias is None else bias + padding


def extend(mask: Tensor | None, keys: int, extra: int, value: float) -> Tensor | None:
    """Extend a mask over `keys` keys, or one that broadcasts over them, by `extra` keys that every query may attend."""
    if mask is None or extra == 0:
        return mask
    return F.pad(mask.expand(*mask.shape[:-1], keys), (0, extra), value=value)


@untraced
def _check(name: str, mask: Tensor, expected: list[tuple[int, ...]], letters: str, query: Tensor) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise DtypeError(
            f"{name} is {mask.dtype}, expected torch.bool (True = may not attend) or a float dtype (added to the "
            f"logits). Convert it: {name}.bool()."
        )
    if mask.device != query.device:
        raise DeviceError(f"{name} is on {mask.device}, query is on {query.device}. Move it with .to(query.device).")
    if tuple(mask.shape) not in expected:
        shapes = " or ".join(str(shape) for shape in expected)
        raise ShapeError(
            f"{name} does not fit ({shape_text(name, mask.shape, '')}); expected {shapes}, axes {letters}."
            + _hint(name, tuple(mask.shape), expected)
        )
    if mask.dtype != torch.bool and not modes.records_operators(query, mask):
        checks.warn_zero_one(mask, name)


def _hint(name: str, shape: tuple[int, ...], expected: list[tuple[int, ...]]) -> str:
    if shape[::-1] == expected[0]:
        return f" It looks transposed: use {name}.mT."
    if name == "attn_mask" and len(shape) == 4:
        return " Join the first two axes: attn_mask.flatten(0, 1)."
    if name == "attn_mask" and len(shape) == 3 and shape[1:] == expected[1][1:]:
        return (
            f" A mask with three axes has one slice per batch entry and head, batch outermost: expected "
            f"{expected[1][0]} slices, got {shape[0]}. For one mask per batch entry use "
            f"attn_mask.repeat_interleave(num_heads, 0)."
        )
    return ""
