"""The masks and biases behind the functions of `clearhead.masks`."""

import torch
from torch import Tensor

from clearhead.errors import DtypeError, OptionError, ShapeError
from clearhead.masks.bias import Bias
from clearhead.masks.mask import Mask
from clearhead.spec import BlockState, four_axes
from clearhead.spec.rule import Sizes


def _range(numbers: Tensor) -> tuple[int, int]:
    """Return the smallest and the largest of some integers; 0 where there are none."""
    return (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)


class Causal(Mask):
    """Query i may attend keys 0..i + offset; the offset may differ by batch entry."""

    def __init__(self, offset: int | Tensor = 0) -> None:
        if isinstance(offset, Tensor) and (offset.dim() != 1 or offset.is_floating_point()):
            raise ShapeError(
                f"causal() takes one offset, or one per batch entry, integers of shape (B,); got {offset.dtype} of "
                f"shape {tuple(offset.shape)}."
            )
        self.offset = offset
        self._least, self._most = _range(offset) if isinstance(offset, Tensor) else (offset, offset)

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k <= q + (self.offset.to(q.device)[b] if isinstance(self.offset, Tensor) else self.offset)

    def state(self, rows: range, cols: range) -> BlockState:
        if cols.stop - 1 <= rows.start + self._least:
            return BlockState.FULL
        return BlockState.EMPTY if cols.start > rows.stop - 1 + self._most else BlockState.MIXED

    def sizes(self) -> Sizes:
        return (len(self.offset) if isinstance(self.offset, Tensor) else None, None, None, None)

    def __repr__(self) -> str:
        if isinstance(self.offset, Tensor):
            return f"causal(offset={self.offset.tolist()})"
        return f"causal(offset={self.offset})" if self.offset else "causal()"


class Corner(Causal):
    """The causal mask of torch.nn.attention.bias for one L and S, aligned at the upper left or the lower right."""

    def __init__(self, length: int, keys: int, *, lower_right: bool) -> None:
        super().__init__(keys - length if lower_right else 0)
        self._length, self._keys, self._lower_right = length, keys, lower_right

    def sizes(self) -> Sizes:
        return (None, None, self._length, self._keys)

    def __repr__(self) -> str:
        return f"causal_{'lower_right' if self._lower_right else 'upper_left'}({self._length}, {self._keys})"


def from_causal_bias(bias: Tensor) -> Corner:
    """Return a mask of torch.nn.attention.bias as a rule. It is a tensor subclass whose memory is unused."""
    lower_right = bias.variant.name == "LOWER_RIGHT"  # type: ignore[attr-defined]
    return Corner(bias.seq_len_q, bias.seq_len_kv, lower_right=lower_right)  # type: ignore[attr-defined]


class SlidingWindow(Mask):
    """Query i may attend keys less than `size` positions away."""

    def __init__(self, size: int) -> None:
        if size < 1:
            raise OptionError(f"sliding_window({size}): expected a size of at least 1 (1 = only its own position).")
        self.size = size

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() < self.size

    def state(self, rows: range, cols: range) -> BlockState:
        low, high = rows.start - (cols.stop - 1), rows.stop - 1 - cols.start  # the range of q - k
        if max(abs(low), abs(high)) < self.size:
            return BlockState.FULL
        return BlockState.EMPTY if low >= self.size or high <= -self.size else BlockState.MIXED

    def __repr__(self) -> str:
        return f"sliding_window({self.size})"


class Prefix(Mask):
    """Every query may attend the first `size` keys."""

    def __init__(self, size: int) -> None:
        self.size = size

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k < self.size

    def state(self, rows: range, cols: range) -> BlockState:
        if cols.stop <= self.size:
            return BlockState.FULL
        return BlockState.EMPTY if cols.start >= self.size else BlockState.MIXED

    def __repr__(self) -> str:
        return f"prefix({self.size})"


class Padding(Mask):
    """Batch entry b has lengths[b] keys; the rest are padding."""

    def __init__(self, lengths: Tensor) -> None:
        if lengths.dim() != 1 or lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise ShapeError(
                f"padding() takes the number of keys of each batch entry, integers of shape (B,); got "
                f"{lengths.dtype} of shape {tuple(lengths.shape)}. From a mask (B, S): padding(mask.sum(-1))."
            )
        self.lengths = lengths
        self._least, self._most = _range(lengths)

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k < self.lengths.to(k.device)[b]

    def state(self, rows: range, cols: range) -> BlockState:
        if cols.stop <= self._least:
            return BlockState.FULL
        return BlockState.EMPTY if cols.start >= self._most else BlockState.MIXED

    def sizes(self) -> Sizes:
        return (len(self.lengths), None, None, None)

    def __repr__(self) -> str:
        return f"padding({self.lengths.tolist()})"


class Document(Mask):
    """Packed sequences: a query may attend the keys with its own id."""

    def __init__(self, ids: Tensor, key_ids: Tensor | None = None) -> None:
        key_ids = ids if key_ids is None else key_ids
        for given in (ids, key_ids):
            if given.dim() not in (1, 2) or given.is_floating_point():
                raise ShapeError(
                    f"document() takes integer ids of shape (S,) or (B, S); got {given.dtype} of shape "
                    f"{tuple(given.shape)}."
                )
        self.ids, self.key_ids = torch.atleast_2d(ids), torch.atleast_2d(key_ids)

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        ids, key_ids = self.ids.to(q.device), self.key_ids.to(q.device)
        return ids[b if len(ids) != 1 else 0, q] == key_ids[b if len(key_ids) != 1 else 0, k]

    def state(self, rows: range, cols: range) -> BlockState:
        q, k = self.ids[:, rows.start : rows.stop], self.key_ids[:, cols.start : cols.stop]
        q_low, q_high, k_low, k_high = q.amin(1), q.amax(1), k.amin(1), k.amax(1)
        if bool(((q_low > k_high) | (k_low > q_high)).all()):
            return BlockState.EMPTY
        return BlockState.FULL if bool(((q_low == k_high) & (k_low == q_high)).all()) else BlockState.MIXED

    def sizes(self) -> Sizes:
        batch = len(self.key_ids) if len(self.ids) == 1 else len(self.ids)
        return (None if batch == 1 else batch, None, self.ids.shape[1], self.key_ids.shape[1])

    def __repr__(self) -> str:
        return f"document(ids of shape {tuple(self.ids.shape)})"


class Dense(Mask):
    """A mask given as a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        if tensor.dtype != torch.bool or not 2 <= tensor.dim() <= 4:
            raise DtypeError(
                f"from_dense() takes a bool tensor of 2 to 4 axes, (L, S) to (B, H, L, S), True = may attend; got "
                f"{tensor.dtype} of shape {tuple(tensor.shape)}. For a float mask use mask > -inf, or pass it as it is."
            )
        self.tensor = four_axes(tensor)

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        tensor = self.tensor.to(q.device)
        at = (index if size != 1 else 0 for index, size in zip((b, h, q, k), tensor.shape, strict=True))
        return tensor[tuple(at)]

    def state(self, rows: range, cols: range) -> BlockState:
        height, width = self.tensor.shape[2:]
        part = self.tensor[:, :, rows.start : rows.stop] if height != 1 else self.tensor
        part = part[..., cols.start : cols.stop] if width != 1 else part
        if bool(part.all()):
            return BlockState.FULL
        return BlockState.MIXED if bool(part.any()) else BlockState.EMPTY

    def sizes(self) -> Sizes:
        batch, heads, length, keys = (None if size == 1 else size for size in self.tensor.shape)
        return (batch, heads, length, keys)

    def __repr__(self) -> str:
        return f"from_dense(shape {tuple(self.tensor.shape)})"


class Alibi(Bias):
    """ALiBi: minus slope times distance, with one slope per head."""

    def __init__(self, slopes: Tensor) -> None:
        if not isinstance(slopes, Tensor) or slopes.dim() != 1 or not slopes.is_floating_point():
            given = f"{slopes.dtype} of shape {tuple(slopes.shape)}" if isinstance(slopes, Tensor) else repr(slopes)
            raise ShapeError(
                f"alibi() takes one float slope per head, a tensor of shape (H,); got {given}. For H heads, a power of "
                f"two, Press et al. use 2 ** -(8 / H * torch.arange(1, H + 1))."
            )
        self.slopes = slopes

    def values(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        slopes = self.slopes.to(q.device)
        return -slopes[h] * (q - k).abs().to(slopes.dtype)

    def sizes(self) -> Sizes:
        return (None, len(self.slopes), None, None)

    def __repr__(self) -> str:
        return f"alibi({len(self.slopes)} slopes)"


class Relative(Bias):
    """A learned number for each distance k - q, one row per head; distances beyond the table use its ends."""

    def __init__(self, table: Tensor) -> None:
        if table.dim() not in (1, 2) or table.shape[-1] % 2 == 0 or not table.is_floating_point():
            raise ShapeError(
                f"relative() takes a float table (H, 2·R + 1) or (2·R + 1,), for distances -R..R; got "
                f"{table.dtype} of shape {tuple(table.shape)}."
            )
        self.table = torch.atleast_2d(table)

    def values(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        reach = self.table.shape[1] // 2
        distance = (k - q).clamp(-reach, reach) + reach
        return self.table.to(q.device)[h if len(self.table) != 1 else torch.zeros_like(h), distance]

    def sizes(self) -> Sizes:
        return (None, None if len(self.table) == 1 else len(self.table), None, None)

    def __repr__(self) -> str:
        return f"relative(table of shape {tuple(self.table.shape)})"
