"""DecodeSteps: fast path for recording decode steps, in which a KV cache grows by one key.

A step has one query and S keys. All keys, or all but the last, must be those of the step before, which is compared bit
for bit. The comparison is skipped if it cannot fail: transformers' `DynamicLayer` concatenates, so if a cache of
exactly this class held the unchanged keys of the step before when the model began, it has appended to them. (A
comparison takes 150 µs per layer after 2,000 tokens of SmolLM2, whose steps take 1,700 µs per layer.)

The record then needs only the query. The cache's own tensor serves all steps so far without a copy, as long as the
model does not write to the cache in place. If that cannot be known, because tensors have no version
(`torch.inference_mode`), the new key is copied behind the earlier ones. Outputs are recomputed for the first steps and
for every sixteenth.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.capture.call import Call, Masks, check_rows, holds_numbers
from clearhead.capture.generation.cached_keys import Keys
from clearhead.capture.steps import Step
from clearhead.matrix import AttentionMatrix
from clearhead.spec import TENSORS, Attention

CHECKED_FIRST, CHECKED_EVERY = 2, 16
SPARE = 64  # smallest number of further keys for which a layer's own memory has room


@dataclass(slots=True)
class _Layer:
    """The state of a layer after its last step.

    Attributes:
        keys: the keys that all steps share.
        size: the number of keys of the last step.
        query: (B, H, 1, D), the shape of its query.
        device: the type of its device, as in "cpu".
        own: its attention as the model described it, compared with the next one's.
        attention: the same as recorded, without its mask.
        version: the version of the keys' memory when it was first shared; None if the memory is the record's own.
        room: (B, H_kv, more than size, D), the record's own memory, of which `keys` is the beginning; None without one.
        count: how many steps in a row were recorded this way.
        index: the module's index in a cache of transformers; None without one.
        options: the options of the last call; a call with equal options needs no description. None if not known.
        next_options: the options of the call that is being recorded.
        holder: the cache layer that held `keys` when the model began, and appends to them; None without one.
    """

    keys: Keys
    size: int
    query: torch.Size
    device: str
    own: Attention
    attention: Attention
    version: int | None = None
    room: Tensor | None = None
    count: int = 0
    index: int | None = None
    options: tuple[Any, ...] | None = None
    next_options: tuple[Any, ...] | None = None
    holder: Any = None

    @property
    def is_checked_next(self) -> bool:
        """Whether the output of the next step is recomputed."""
        return self.count < CHECKED_FIRST or self.count % CHECKED_EVERY == 0

    def share(self, key: Tensor) -> None:
        """Share the cache's own tensor."""
        self.keys.held, self.version, self.room = key.detach() if key.requires_grad else key, key._version, None

    def append(self, key: Tensor) -> None:
        """Copy the last of these keys behind the others; copy all of them if there is no room."""
        size = key.shape[2]
        left = self.room is not None and self.room.is_inference() and not torch.is_inference_mode_enabled()
        if self.room is None or self.room.shape[2] < size or left:  # no longer written to outside inference mode
            self.room = key.new_empty(*key.shape[:2], size + max(SPARE, size // 4), key.shape[3])
            self.room[:, :, :size] = key.detach()
        else:
            self.room[:, :, size - 1] = key.detach()[:, :, -1]
        self.keys.held, self.version = self.room[:, :, :size], None

    def end(self) -> None:
        """Copy the keys to their own memory, without room for more."""
        if self.keys.held is not None and (self.version is not None or self.room is not None):
            self.keys.held = self.keys.held.clone(memory_format=torch.contiguous_format)
        self.holder = None


class DecodeSteps:
    """Records steps that only add a key to a cache, for one observer.

    Args:
        masks: the observer's masks.
    """

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self._layers: dict[int, _Layer] = {}  # by the id of the module
        self._shared: tuple[Tensor, Attention, Attention] | None = None  # one mask serves all layers of a step

    def add(self, call: Call, step: Step) -> None:
        """Note a step that was recorded in full, which the next one may continue."""
        if (before := self._layers.pop(id(call.module), None)) is not None:
            before.end()
        own = call.attention
        varies = any(part is not None for part in (own.allow, own.bias, own.rule, own.alibi, own.key_bias))
        if varies or call.query.dim() != 4 or call.query.shape[2] != 1 or call.dropout:
            return
        if type(call.query) is not Tensor or step.keys.chain is not None or step.attention is None:
            return
        attention = step.attention.change(allow=None)
        if attention.bias is None:
            index = getattr(call.module, "layer_idx", None)
            kind = call.query.device.type
            known = _Layer(step.keys, step.size, call.query.shape, kind, own, attention, index=index)
            self._layers[id(call.module)] = known

    def begins(self, cache: Any) -> None:
        """Note which layers of a cache hold the keys of the last step, when the model begins the next one."""
        layers: Any = getattr(getattr(cache, "self_attention_cache", cache), "layers", None)
        appends = getattr(sys.modules.get("transformers.cache_utils"), "DynamicLayer", None)
        usual = layers is not None and torch._C._functorch.peek_interpreter_stack() is None
        for known in self._layers.values():
            known.holder = None
            if usual and known.index is not None and known.index < len(layers):
                layer, held = layers[known.index], known.keys.held
                if (
                    type(layer) is appends
                    and held is not None
                    and layer.keys is held
                    and held._version == known.version
                ):
                    known.holder = layer

    def follow(self, module: nn.Module, query: Tensor, key: Tensor, mask: Any, options: tuple[Any, ...]) -> Step | None:
        """Return the step of a call with equal options whose keys are known to continue the last step's; else None.

        This runs for every layer of every token, so `begins` does everything that can be done once per pass.
        """
        known = self._layers.get(id(module))
        if known is None:
            return None
        known.next_options = options
        if known.options is None or known.is_checked_next or not all(map(is_, options, known.options)):
            return None
        if query.shape != known.query or torch.is_autocast_enabled(known.device):
            return None
        if not self._is_known(known, key):
            return None
        attention = known.attention if mask is None else self._masked(known, mask, key)
        return None if attention is None else self._taken(known, query, key, attention)

    def step(self, call: Call) -> Step | None:
        """Return the step of a call that has the keys of the last call, or these and one more; else None.

        Raises:
            CaptureError: its output is not that of the recorded attention.
        """
        known = self._layers.get(id(call.module))
        if known is None or not self._continues(known, call):
            return None
        attention = self._attention(known, call)
        if attention is None:
            return None
        if known.is_checked_next:
            check_rows(call, attention)
        known.own, known.options, known.next_options = call.attention, known.next_options, None
        return self._taken(known, call.query, call.key, attention)

    def _taken(self, known: _Layer, query: Tensor, key: Tensor, attention: Attention) -> Step:
        """Keep the keys and a copy of the query."""
        if key is not known.keys.held:
            if not key.is_inference() and key._version == 0 and key.is_contiguous() and not key._is_view():
                known.share(key)
            elif key.shape[2] > known.size or known.room is None:
                known.append(key)
        known.keys.seen, known.holder = None, None
        known.size = key.shape[2]
        known.count += 1
        query = (query.detach() if query.requires_grad else query).clone(memory_format=torch.contiguous_format)
        return Step(partial(_matrix, query, attention), known.keys, known.size, 1, attention, query)

    def end(self) -> None:
        """Copy the keys that are still shared with a cache, which may change after the recording."""
        for known in self._layers.values():
            known.end()
        self._layers.clear()

    def _is_known(self, known: _Layer, key: Tensor) -> bool:
        """Whether the keys are known to be those of the step before, or these and one more."""
        held = known.keys.held
        if key is held:
            return not key.is_inference() and key._version == known.version
        holder = known.holder
        return (
            holder is not None
            and holder.keys is key
            and key.shape[2] == known.size + 1
            and held is not None
            and key.dtype == held.dtype
        )

    def _continues(self, known: _Layer, call: Call) -> bool:
        before, key = known.keys.held, call.key
        if before is None or call.dropout or torch.is_autocast_enabled(key.device.type):
            return False
        if call.query.shape != known.query:
            return False
        if self._is_known(known, key):
            return True
        if key.dim() != 4 or key.shape[:2] != before.shape[:2] or key.shape[3] != before.shape[3]:
            return False
        if key.shape[2] - known.size not in (0, 1) or key.dtype != before.dtype:
            return False
        if type(key) is not Tensor or not holds_numbers(key):
            return False
        if known.version is not None and before._version != known.version:  # overwritten since
            return False
        return _equal(before[:, :, : known.size], key[:, :, : known.size])

    def _attention(self, known: _Layer, call: Call) -> Attention | None:
        """Return the attention of a call, one object for all that share it; None if it differs from the last step's."""
        now, before = call.attention, known.own
        if now is not before:
            if now.scale != before.scale or now.softcap != before.softcap or now.band != before.band:
                return None
            if now.rule is not None or any(getattr(now, name) is not getattr(before, name) for name in TENSORS):
                return None
        return known.attention if call.mask is None else self._masked(known, call.mask, call.key)

    def _masked(self, known: _Layer, mask: Any, key: Tensor) -> Attention | None:
        """Return the layer's attention under a mask; None if the mask adds to the logits."""
        if not isinstance(mask, Tensor):
            return None
        allow, bias = self._masks.split(mask)
        if bias is not None:
            return None
        if allow is None:
            return known.attention
        if self._shared is None or self._shared[0] is not allow or self._shared[1] is not known.attention:
            part = Attention(allow=allow[..., : key.shape[2]])
            self._shared = allow, known.attention, known.attention.under(part).with_four_axes()
        return self._shared[2]


def _matrix(query: Tensor, attention: Attention, key: Tensor) -> AttentionMatrix:
    return AttentionMatrix.of_known(query, key, attention)


def _equal(before: Tensor, now: Tensor) -> bool:
    """Whether two (B, H, S, D) hold the same bits; compared eight bytes at a time where possible."""
    if before.shape[3] * before.element_size() % 8 == 0 and before.stride(3) == now.stride(3) == 1:
        with suppress(RuntimeError):  # strides or offset are not multiples of eight bytes
            before, now = before.view(torch.int64), now.view(torch.int64)
    return torch.equal(before, now)
