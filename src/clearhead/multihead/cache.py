"""The keys and values of what was read already, so that the next token costs one query."""

import torch
from torch import Tensor

from clearhead import kernels, masks
from clearhead.arguments import checked
from clearhead.errors import CacheFullError, OptionError, ShapeError, shape_text


class KVCache:
    """Preallocated keys and values of one attention layer.

    Args:
        batch: B.
        num_kv_heads: H_kv, the heads of keys, which may be fewer than those of queries.
        capacity: how many positions fit. With `window`, how many may be appended in one call; any number in all.
        head_dim: D of keys.
        value_dim: width of values; default head_dim.
        window: keep only the last `window` positions, for sliding-window attention.
        dtype, device: of keys and values.

    Memory: B·H_kv·capacity·(D + value_dim), allocated once; with a window, (2·window + capacity) positions.

    Example:
        >>> import clearhead
        >>> cache = KVCache(1, 2, capacity=16, head_dim=8)
        >>> q, k, v = torch.randn(3, 1, 2, 5, 8)
        >>> whole = clearhead.attention(q, k, v, is_causal=True)
        >>> steps = []
        >>> for i in range(5):
        ...     keys, values = cache.append(k[:, :, i : i + 1], v[:, :, i : i + 1])
        ...     steps.append(clearhead.attention(q[:, :, i : i + 1], keys, values))
        >>> torch.allclose(torch.cat(steps, 2), whole, atol=1e-6)
        True
    """

    def __init__(
        self,
        batch: int,
        num_kv_heads: int,
        capacity: int,
        head_dim: int,
        *,
        value_dim: int | None = None,
        window: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        if capacity < 1 or (window is not None and window < 1):
            raise OptionError(f"capacity is {capacity} and window is {window}; expected at least 1 of each.")
        room = capacity if window is None else 2 * window + capacity
        self._keys = torch.zeros(batch, num_kv_heads, room, head_dim, dtype=dtype, device=device)
        width = head_dim if value_dim is None else value_dim
        self._values = torch.zeros(batch, num_kv_heads, room, width, dtype=dtype, device=device)
        self.capacity, self.window = capacity, window
        self._start = self._stop = 0  # the positions held lie here in the buffers
        self._seen = 0

    @property
    def length(self) -> int:
        """How many positions were appended in all: the position of the next one."""
        return self._seen

    @property
    def held(self) -> int:
        """How many positions are held now."""
        return self._stop - self._start

    @property
    def keys(self) -> Tensor:
        """(B, H_kv, held, D), a view, in order of position. The next `append` may write to it."""
        return self._keys[:, :, self._start : self._stop]

    @property
    def values(self) -> Tensor:
        """(B, H_kv, held, value_dim), a view."""
        return self._values[:, :, self._start : self._stop]

    @checked()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Add positions at the end.

        Args:
            key: (B, H_kv, n, D), already turned by rotary positions if there are any.
            value: (B, H_kv, n, value_dim).
        Returns:
            (keys, values): views of all that these n queries may need; with a window, n + window - 1 positions.
        Raises:
            CacheFullError: n positions do not fit. Nothing was written, nothing is lost.
            ShapeError: key or value does not fit the cache.
            OptionError: gradients are wanted; a cache is for inference.
        """
        kernels.refuse_tracing("a KVCache, which keeps what it is given")
        self._check(key, value)
        new = key.shape[2]
        if self.window is None:
            if self._stop + new > self.capacity:
                raise CacheFullError(
                    f"the cache holds {self.held} of {self.capacity} positions, {new} more do not fit. Nothing was "
                    f"written. Make a larger one and append cache.keys, cache.values to it, or give it a window."
                )
        else:
            if new > self.capacity:
                raise CacheFullError(
                    f"{new} positions in one call, the cache takes {self.capacity} (window {self.window}). Nothing was "
                    f"written. Append in parts of at most {self.capacity}, or make the cache with capacity={new}."
                )
            self._roll(new, self.window)
        place = slice(self._stop, self._stop + new)
        self._keys[:, :, place], self._values[:, :, place] = key, value
        self._stop += new
        self._seen += new
        return self.keys, self.values

    def mask(self, new: int) -> masks.Mask:
        """The mask for the last `new` queries over `keys`: causal by position, and within the window."""
        rule = masks.causal() if self.window is None else masks.causal() & masks.sliding_window(self.window)
        return rule.shifted(self.held - new)

    def reset(self) -> None:
        """Forget everything; keep the memory."""
        self._start = self._stop = self._seen = 0

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on, as if they had never been appended.

        With a window, what the last call appended can always be taken back, and more while the positions before it,
        which the next query will see again, have not been written over.

        Raises:
            OptionError: `length` is past the end, or the positions before it are gone. Nothing was forgotten.
        """
        oldest = self._seen - self._stop  # the buffer holds all from here on, those that left the window too
        needed = 0 if self.window is None else max(0, length - (self.window - 1))
        if not 0 <= length <= self._seen or needed < oldest:
            least = oldest + self.window - 1 if self.window is not None and oldest else 0
            raise OptionError(
                f"crop({length}): {self._seen} positions were appended, and the cache can go back to {least} at the "
                f"furthest. Give a length from {least} to {self._seen}, or reset() it and read the text again."
            )
        self._stop -= self._seen - length
        self._start = min(self._start, needed - oldest)
        self._seen = length

    @checked()
    def reorder(self, batch: Tensor) -> None:
        """Let batch entry b continue what entry batch[b] has read (beam search)."""
        self._keys, self._values = self._keys.index_select(0, batch), self._values.index_select(0, batch)

    def _roll(self, new: int, window: int) -> None:
        """Drop what has left the window; move the rest to the front where the end of the buffer is near."""
        self._start = max(self._start, self._stop - (window - 1))
        if self._stop + new > self._keys.shape[2]:
            held = self.held  # at most window - 1, and the buffer is larger than twice that: no overlap
            for buffer in (self._keys, self._values):
                buffer[:, :, :held] = buffer[:, :, self._start : self._stop].clone()
            self._start, self._stop = 0, held

    def _check(self, key: Tensor, value: Tensor) -> None:
        for name, tensor, buffer in (("key", key, self._keys), ("value", value, self._values)):
            batch, heads, _, width = buffer.shape
            if tensor.dim() != 4 or (tensor.shape[0], tensor.shape[1], tensor.shape[3]) != (batch, heads, width):
                raise ShapeError(
                    f"{name} does not fit the cache ({shape_text(name, tensor.shape, 'B,H,n,D')}); expected "
                    f"({batch}, {heads}, n, {width}), any n."
                )
        if key.shape[2] != value.shape[2]:
            raise ShapeError(f"key brings {key.shape[2]} positions and value {value.shape[2]}; expected the same.")
        if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
            raise OptionError(
                "the keys to be cached want gradients, and a cache is written in place. Run under torch.no_grad() or "
                "torch.inference_mode(), or train without a cache."
            )
