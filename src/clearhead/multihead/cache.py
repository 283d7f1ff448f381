"""`KVCache`: keys and values of the tokens so far, so that decode computes one query per token."""

import torch
from torch import Tensor

from clearhead import kernels, masks
from clearhead.arguments import checked
from clearhead.errors import CacheFullError, OptionError, ShapeError, shape_text


class KVCache:
    """A preallocated KV cache of one attention layer.

    Args:
        batch: B.
        num_kv_heads: H_kv, the number of key heads, which may be smaller than H.
        capacity: how many positions fit. With `window`, how many may be appended in one call, without a total limit.
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
        self._start = self._stop = 0  # the part of the buffers that is in use
        self._seen = 0

    @property
    def length(self) -> int:
        """How many positions were appended in total; also the position of the next one."""
        return self._seen

    @property
    def held(self) -> int:
        """How many positions the cache holds now."""
        return self._stop - self._start

    @property
    def keys(self) -> Tensor:
        """The keys held, (B, H_kv, held, D), in order of position: a view that the next `append` may overwrite."""
        return self._keys[:, :, self._start : self._stop]

    @property
    def values(self) -> Tensor:
        """The values held, (B, H_kv, held, value_dim): a view that the next `append` may overwrite."""
        return self._values[:, :, self._start : self._stop]

    @checked()
    def append(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append positions; return views of all keys and values that the new queries may attend.

        Args:
            key: (B, H_kv, n, D), with rotary positions already applied, if any.
            value: (B, H_kv, n, value_dim).
        Returns:
            (keys, values): views; with a window, of the last n + window - 1 positions at most.
        Raises:
            CacheFullError: n positions do not fit. The cache is unchanged.
            ShapeError: key or value does not fit the cache.
            OptionError: key or value requires a gradient; a cache is for inference.
        """
        kernels.refuse_tracing("a KVCache, which is written in place")
        self._check(key, value)
        new = key.shape[2]
        if self.window is None:
            if self._stop + new > self.capacity:
                raise CacheFullError(
                    f"the cache holds {self.held} of {self.capacity} positions, so {new} more do not fit. Nothing "
                    f"was written. Make a larger cache and append cache.keys, cache.values to it, or give it a window."
                )
        else:
            if new > self.capacity:
                raise CacheFullError(
                    f"{new} positions in one call, but the cache takes {self.capacity} (window {self.window}). Nothing "
                    f"was written. Append in parts of at most {self.capacity}, or make the cache with capacity={new}."
                )
            self._roll(new, self.window)
        place = slice(self._stop, self._stop + new)
        self._keys[:, :, place], self._values[:, :, place] = key, value
        self._stop += new
        self._seen += new
        return self.keys, self.values

    def mask(self, new: int) -> masks.Mask:
        """Return the mask for the last `new` queries over `keys`: causal by position, and within the window."""
        rule = masks.causal() if self.window is None else masks.causal() & masks.sliding_window(self.window)
        return rule.shifted(self.held - new)

    def reset(self) -> None:
        """Forget everything; keep the memory."""
        self._start = self._stop = self._seen = 0

    def crop(self, length: int) -> None:
        """Forget the positions from `length` on, as if they had never been appended.

        With a window, the positions of the last `append` can always be removed; more can be removed as long as the
        window before `length` has not been overwritten.

        Raises:
            OptionError: `length` is past the end, or the window before it was overwritten. The cache is unchanged.
        """
        oldest = self._seen - self._stop  # the buffer holds every position from here on
        needed = 0 if self.window is None else max(0, length - (self.window - 1))
        if not 0 <= length <= self._seen or needed < oldest:
            least = oldest + self.window - 1 if self.window is not None and oldest else 0
            raise OptionError(
                f"crop({length}): {self._seen} positions were appended, and the cache can be cropped to {least} at the "
                f"shortest. Give a length from {least} to {self._seen}, or call reset() and read the text again."
            )
        self._stop -= self._seen - length
        self._start = min(self._start, needed - oldest)
        self._seen = length

    @checked()
    def reorder(self, batch: Tensor) -> None:
        """Make batch entry b continue from the positions of entry batch[b] (beam search)."""
        self._keys, self._values = self._keys.index_select(0, batch), self._values.index_select(0, batch)

    def _roll(self, new: int, window: int) -> None:
        """Drop the positions outside the window; move the rest to the front if the buffer would overflow."""
        self._start = max(self._start, self._stop - (window - 1))
        if self._stop + new > self._keys.shape[2]:
            held = self.held  # at most window - 1, less than half the buffer, so source and target do not overlap
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
            raise ShapeError(
                f"key has {key.shape[2]} positions and value has {value.shape[2]}; expected the same number."
            )
        if torch.is_grad_enabled() and (key.requires_grad or value.requires_grad):
            raise OptionError(
                "key or value requires a gradient, but a cache is written in place. Run under torch.no_grad() or "
                "torch.inference_mode(), or train without a cache."
            )
