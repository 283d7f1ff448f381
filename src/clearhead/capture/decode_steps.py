"""DecodeSteps: the steps of a generation, recorded at little cost where a cache grows by one key.

A step has one query and S keys, of which all but the last are those of the step before: that is compared bit for bit.
Then the record needs the query alone; the cache's own tensor serves all steps so far, without a copy while the model
writes into no cache in place. Where that cannot be known, as of tensors without a version (`torch.inference_mode`), the
new key is copied behind those of before. Outputs are recomputed for the first steps and for every sixteenth.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from clearhead.capture.call import Call, Masks, check_rows, holds_numbers
from clearhead.capture.generation.cached_keys import Keys
from clearhead.capture.steps import Step
from clearhead.matrix import AttentionMatrix
from clearhead.spec import Attention

CHECKED_FIRST, CHECKED_EVERY = 2, 16
SPARE = 64  # keys that a layer's own memory has room for beyond those it holds, at least


@dataclass(slots=True)
class _Layer:
    """What is known of a layer after its last step.

    Attributes:
        keys: those that all steps share.
        size: how many the last step had.
        query: (B, H, 1, D), the shape of its query.
        own: its attention as the model described it, compared with the next one's.
        attention: the same as recorded, without its mask.
        version: of the keys' memory when it was taken over; None where it is the record's own.
        room: (B, H_kv, more than size, D), the record's own memory, whose beginning `keys` shows; None: there is none.
        count: how many steps in a row were recorded this way.
    """

    keys: Keys
    size: int
    query: torch.Size
    own: Attention
    attention: Attention
    version: int | None = None
    room: Tensor | None = None
    count: int = 0

    def share(self, key: Tensor) -> None:
        """Let the cache's own tensor hold the keys."""
        self.keys.held, self.version, self.room = key.detach(), key._version, None

    def append(self, key: Tensor) -> None:
        """Copy the last of these keys behind the others; all of them where there is no room."""
        size = key.shape[2]
        left = self.room is not None and self.room.is_inference() and not torch.is_inference_mode_enabled()
        if self.room is None or self.room.shape[2] < size or left:  # no longer written to outside inference mode
            self.room = key.new_empty(*key.shape[:2], size + max(SPARE, size // 4), key.shape[3])
            self.room[:, :, :size] = key.detach()
        else:
            self.room[:, :, size - 1] = key.detach()[:, :, -1]
        self.keys.held, self.version = self.room[:, :, :size], None

    def end(self) -> None:
        """Give the keys memory of their own, without room for more."""
        if self.keys.held is not None and (self.version is not None or self.room is not None):
            self.keys.held = self.keys.held.clone(memory_format=torch.contiguous_format)


class DecodeSteps:
    """Records steps that only add a key to a cache, for one observer.

    Args:
        masks: the observer's.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._layers: dict[str, _Layer] = {}
        self._shared: tuple[Tensor, Attention, Attention] | None = None  # one mask serves all layers of a step

    def begin(self, name: str, call: Call, step: Step) -> None:
        """Note a step that was recorded in full: the next may follow it."""
        if (before := self._layers.pop(name, None)) is not None:
            before.end()
        own = call.attention
        varies = any(part is not None for part in (own.allow, own.bias, own.rule, own.alibi, own.key_bias))
        if varies or call.query.dim() != 4 or call.query.shape[2] != 1 or call.dropout:
            return
        if type(call.query) is not Tensor or step.keys.chain is not None or step.attention is None:
            return
        attention = step.attention.change(allow=None)
        if attention.bias is None:
            self._layers[name] = _Layer(step.keys, step.size, call.query.shape, own, attention)

    def step(self, name: str, call: Call) -> Step | None:
        """The step of a call that adds one key to those of the call before; None where it does not.

        Raises:
            CaptureError: its output is not that of the recorded attention.
        """
        known = self._layers.get(name)
        if known is None or not self._continues(known, call):
            return None
        attention = self._attention(known, call)
        if attention is None:
            return None
        if known.count < CHECKED_FIRST or known.count % CHECKED_EVERY == 0:
            check_rows(call, attention)
        key = call.key
        if not key.is_inference() and key._version == 0 and key.is_contiguous() and not key._is_view():
            known.share(key)
        else:
            known.append(key)
        known.keys.seen = None
        known.size, known.own, known.count = key.shape[2], call.attention, known.count + 1
        query = call.query.detach().clone(memory_format=torch.contiguous_format)
        return Step(partial(_matrix, query, attention), known.keys, known.size, 1, attention, query)

    def end(self) -> None:
        """Copy the keys that are still a cache's own: it may go on without the record."""
        for known in self._layers.values():
            known.end()
        self._layers.clear()

    def _continues(self, known: _Layer, call: Call) -> bool:
        before, key = known.keys.held, call.key
        if before is None or call.dropout or torch.is_autocast_enabled(key.device.type):
            return False
        size = known.size
        shape = (*before.shape[:2], size + 1, before.shape[3])
        if key.shape != shape or call.query.shape != known.query or key.dtype != before.dtype:
            return False
        if type(key) is not Tensor or not holds_numbers(key):
            return False
        if known.version is not None and before._version != known.version:  # overwritten since
            return False
        return _equal(before[:, :, :size], key[:, :, :size])

    def _attention(self, known: _Layer, call: Call) -> Attention | None:
        """The attention of a call, the same object for all that share it; None if it is not as in the last step."""
        now, before = call.attention, known.own
        if now.scale != before.scale or now.softcap != before.softcap or now.band != before.band:
            return None
        tensors = ("sinks", "head_scale", "allow", "bias", "alibi", "key_bias")
        if now.rule is not None or any(getattr(now, part) is not getattr(before, part) for part in tensors):
            return None
        if call.mask is None:
            return known.attention
        if not isinstance(call.mask, Tensor):
            return None
        allow, bias = self._masks.split(call.mask)
        if bias is not None:
            return None
        if allow is None:
            return known.attention
        if self._shared is None or self._shared[0] is not allow or self._shared[1] is not known.attention:
            part = Attention(allow=allow[..., : call.key.shape[2]])
            self._shared = allow, known.attention, known.attention.under(part).with_four_axes()
        return self._shared[2]


def _matrix(query: Tensor, attention: Attention, key: Tensor) -> AttentionMatrix:
    return AttentionMatrix.of_known(query, key, attention)


def _equal(before: Tensor, now: Tensor) -> bool:
    """Whether two (B, H, S, D) hold the same bits; compared eight bytes at a time where they can be."""
    if before.shape[3] * before.element_size() % 8 == 0 and before.stride(3) == now.stride(3) == 1:
        with suppress(RuntimeError):  # strides or an offset of no eight bytes
            before, now = before.view(torch.int64), now.view(torch.int64)
    return torch.equal(before, now)
