"""Track a model's forward passes to know which token each query and key of a call belongs to."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from typing import Any, cast

from torch import Tensor, nn

from clearhead.capture.adapters import bigbird, longformer, prophetnet
from clearhead.capture.attention_modules import SOURCES, attends_itself, is_scripted
from clearhead.capture.positions import Axis, Positions, Sequence

_CACHES = ("past_key_values", "past_key_value", "layer_past", "cache", "kv_cache", "past")
_INPUTS = ("input_ids", "inputs_embeds", "input_embeds")
_DECODER_INPUTS = tuple(f"decoder_{name}" for name in _INPUTS)
_VISION = ("vision_model", "vision_tower", "visual", "image_encoder", "audio_tower")
_PADDING = (*longformer.CLASSES, *bigbird.CLASSES)  # pad the text to whole blocks
_RULED = (*_PADDING, *prophetnet.CLASSES)  # have their own rules for positions


class PositionTracker:
    """Tracks the forward passes of one model: how many tokens its cache holds, and which states its keys come from.

    Args:
        model: the observed model; `watch` adds hooks to its modules.
        modules: its modules by name.
    """

    def __init__(self, model: nn.Module, modules: dict[str, nn.Module]) -> None:
        self._model = model
        self._encoders, self._encoder, self._decoder = _sides(modules.values())
        self._vision = {
            id(inner)
            for name, module in modules.items()
            if name.rpartition(".")[2] in _VISION
            for inner in module.modules()
        }
        self._thread = threading.get_ident()
        self._depth = 0
        self._inside = False  # whether the model itself is running, not only a part of it
        self._text, self._began = 0, False
        self._nth: dict[int, int] = {}
        self._start: int | None = None  # tokens in the cache when the pass began; None: no cache is known
        self._main: int | None = None  # keys in the first self-attention of the pass
        self._cross: dict[int, bool] = {}
        self._ends: dict[int, int] = {}
        self._plain: dict[int, bool] = {}  # modules without their own rules -> whether they belong to a decoder
        self._alone: set[int] = set()  # attention modules without a hook, because they attend to their own states
        # The positions of the last call of a module in `_plain`, after the values that determine them.
        self._last: tuple[Any, ...] | None = None
        self._own: Sequence = "input"
        self._images = 0  # images in the batch, if the model is given pixels
        self._lengths: dict[str, int] = {}  # tokens given in this pass
        self.read: dict[str, int] = {}  # tokens read so far, by sequence
        self.on_cache: Callable[[Any], None] | None = None  # called with the cache before each pass

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as an inactive tracker: copies of the model contain its hooks, which must do nothing there."""
        return _inactive, ()

    def watch(self, attention: list[nn.Module], hooks: ExitStack) -> None:
        """Add hooks to the model, to modules that take a cache, and to the attention modules.

        Modules in a list, such as a model's layers, get none, nor does an attention that can only read its own states:
        hooks on all of them cost 3 % of a step of a small model.
        """
        kept: dict[str, Any] = {"with_kwargs": True}
        hooks.callback(self._model.register_forward_pre_hook(self._model_runs, **kept).remove)
        hooks.callback(self._model.register_forward_hook(self._model_left, always_call=True).remove)
        for module in self._encoders:
            hooks.callback(module.register_forward_pre_hook(self._encoder_runs).remove)
        for module in _holders(self._model):
            hooks.callback(module.register_forward_pre_hook(self._enter, **kept).remove)
            hooks.callback(module.register_forward_hook(self._leave, always_call=True).remove)
        apart = self._encoder | self._vision
        for module in attention:
            if not (id(module) in apart or type(module).__name__ in _RULED):
                self._plain[id(module)] = id(module) in self._decoder
            if attends_itself(cast(Any, type(module))):
                self._alone.add(id(module))
                continue
            hooks.callback(module.register_forward_pre_hook(self._attends, **kept).remove)

    def positions(self, module: nn.Module, batch: int, queries: int, keys: int) -> Positions:
        """Return the positions of the queries and keys of a call."""
        number = id(module)
        if not self._depth and not self._inside and number in self._alone and _takes(type(module), _CACHES):
            self._begin(max(0, keys - queries))  # the module was called on its own
        nth = self._nth.get(number, 0)
        self._nth[number] = nth + 1
        in_decoder = self._plain.get(number)
        if in_decoder is None or self._start is None or self._cross.get(number):
            placed = replace(self._placed(module, batch, queries, keys), text=self._text, nth=nth)
        else:  # all layers of a step share one object
            origin = (in_decoder, batch, queries, keys, self._start, self._text, nth)
            if self._last is None or self._last[0] != origin:
                placed = replace(self._placed(module, batch, queries, keys), text=self._text, nth=nth)
                self._last = (origin, placed)
            placed = self._last[1]
            if placed.within:
                self._ends[number] = keys
        if not self._depth:
            self._start = None  # the module was called on its own
        return placed

    def _placed(self, module: nn.Module, batch: int, queries: int, keys: int) -> Positions:
        if id(module) in self._encoder:
            given = self._lengths.get("input", queries)
            source: Sequence = "input" if queries == given or type(module).__name__ in _PADDING else "other"
            return Positions(Axis(source, range(queries)), Axis(source, range(keys)))
        own: Sequence = "decoder" if id(module) in self._decoder else self._own
        start = self._start or 0
        if self._cross.get(id(module), False):
            source = "input" if own == "decoder" else "other"
            if self._lengths.get(own, queries) != queries:  # pooled, or latents
                return Positions(Axis("other", range(queries)), Axis(source, range(keys)))
            return Positions(Axis(own, range(start, start + queries)), Axis(source, range(keys)))
        if type(module).__name__ in prophetnet.CLASSES:
            return _streams(module, own, start, queries, keys)
        if not self._is_tokens(module, own, batch, queries, keys):
            return Positions(self._sized(own, queries), self._sized(own, keys))
        if self._start is None and keys != queries:
            start = keys - queries
        first = max(0, start + queries - keys)  # a window keeps only the last keys
        self._ends[id(module)] = keys
        return Positions(Axis(own, range(start, start + queries)), Axis(own, range(first, first + keys)))

    def _is_tokens(self, module: nn.Module, own: Sequence, batch: int, queries: int, keys: int) -> bool:
        """Whether a self-attention has one query for each token the model was given."""
        if (self._images and batch != self._images) or (self._lengths and id(module) in self._vision):
            return False
        given = self._lengths.get(own)
        if given is not None and queries != given:
            return queries > given and type(module).__name__ in _PADDING
        if self._start is not None or keys == self._ends.get(id(module), -1) + queries:
            return True
        if self._main is None:
            self._main = keys  # fewer queries are a part of the tokens: a chunk of them, or pooled states
        return queries == keys == self._main

    def _sized(self, own: Sequence, size: int) -> Axis:
        return Axis(own if size == self._main and not self._images else "other", range(size))

    def _begin(self, start: int) -> None:
        """Note that a pass begins; without a cache it begins a new text."""
        self._nth.clear()
        self._last = None
        if start == 0:
            self.read.clear()
            self._text += self._began
        self._began = True

    def _encoder_runs(self, *_: Any) -> None:
        if threading.get_ident() == self._thread and not self._inside:
            self._begin(0)
            self._began = False  # the decoder's first pass belongs to the same text

    def _model_left(self, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._inside = False

    def _model_runs(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        self._main, self._images, self._lengths, self._last = None, 0, {}, None
        given = _named_arguments(module, args, kwargs)
        cache = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        start = _cached_tokens(cache) or 0
        self._inside = True
        self._begin(start)
        self._own = "decoder" if given.get("encoder_hidden_states") is not None else "input"
        two_sided = bool(self._decoder)
        for names, sequence in ((_INPUTS, "input" if two_sided else self._own), (_DECODER_INPUTS, "decoder")):
            tokens = next((given[name] for name in names if isinstance(given.get(name), Tensor)), None)
            if tokens is not None and tokens.dim() >= 2:
                before = 0 if two_sided and sequence == "input" else start
                self._lengths[sequence] = tokens.shape[1]
                self.read[sequence] = before + tokens.shape[1]
        pixels = given.get("pixel_values")
        if isinstance(pixels, Tensor) and pixels.dim() == 4:
            self._images = pixels.shape[0]

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        if self._depth == 0 and id(module) not in self._encoder:
            self._read_cache(_named_arguments(module, args, kwargs))
        self._depth += 1

    def _read_cache(self, given: dict[str, Any], layer: int = 0) -> None:
        """Note how many tokens the cache among a module's arguments holds."""
        cache = next((given[name] for name in _CACHES if given.get(name) is not None), None)
        self._start = _cached_tokens(cache, layer)
        if self.on_cache is not None:
            self.on_cache(cache)
        if not self._inside:
            self._begin(self._start or 0)

    def _leave(self, *_: Any) -> None:
        if threading.get_ident() == self._thread:
            self._depth = max(0, self._depth - 1)
            self._start = self._start if self._depth else None

    def _attends(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self._thread:
            return
        given = _named_arguments(module, args, kwargs)
        if self._depth == 0 and id(module) not in self._encoder and _takes(type(module), _CACHES):
            self._read_cache(given, getattr(module, "layer_idx", None) or 0)
        query, key = given.get("query"), given.get("key")
        apart = isinstance(query, Tensor) and isinstance(key, Tensor) and query is not key
        self._cross[id(module)] = apart or any(isinstance(given.get(name), Tensor) for name in SOURCES)


def _sides(modules: Iterable[nn.Module]) -> tuple[list[nn.Module], set[int], set[int]]:
    """Return each `encoder` that has a `decoder` beside it, and the module ids inside the encoders and decoders."""
    roots, encoder, decoder = list[nn.Module](), set[int](), set[int]()
    for module in modules:
        read, written = module._modules.get("encoder"), module._modules.get("decoder")
        if read is None or written is None or is_scripted(read):
            continue
        config = getattr(module, "config", None)
        if getattr(config, "is_encoder_decoder", True):  # Funnel's decoder reads what its encoder read
            roots.append(read)
            encoder |= {id(inner) for inner in read.modules()}
            decoder |= {id(inner) for inner in written.modules()}
    return roots, encoder, decoder - encoder


def _streams(module: Any, own: Sequence, start: int, queries: int, keys: int) -> Positions:
    """Return ProphetNet's positions: each stream of queries runs along the same tokens, and so do its own keys."""
    length = queries // (1 + module.ngram)
    again = tuple(range(start, start + length)) * module.ngram
    return Positions(Axis(own, (*range(start, start + length), *again)), Axis(own, (*range(keys - len(again)), *again)))


def _holders(model: nn.Module) -> list[nn.Module]:
    """Return the modules that take a cache, without those in a list inside another such module."""
    chosen: dict[int, nn.Module] = {}

    def walk(module: nn.Module, covered: bool) -> None:
        takes = _takes(type(module), _CACHES)
        if takes:
            chosen[id(module)] = module
        for child in module.children():
            if not (is_scripted(child) or ((covered or takes) and isinstance(child, nn.ModuleList))):
                walk(child, covered or takes)

    walk(model, False)
    return list(chosen.values())


def _cached_tokens(cache: Any, layer: int = 0) -> int | None:
    """Return the number of tokens that a cache holds in a layer; 0 without a cache, None if it cannot be read.

    >>> _cached_tokens(None)
    0
    """
    if cache is None:
        return 0
    if hasattr(cache, "get_seq_length"):
        return int(cache.get_seq_length(layer) if layer else cache.get_seq_length())
    if isinstance(getattr(cache, "length", None), int):
        return int(cache.length)
    first = next(_tensors(cache), None)
    return first.shape[-2] if first is not None and first.dim() >= 3 else None


def _tensors(cache: Any) -> Iterator[Tensor]:
    if isinstance(cache, Tensor):
        yield cache
    elif isinstance(cache, tuple | list):
        for part in cache:
            yield from _tensors(part)


@lru_cache(maxsize=1024)
def _names(kind: Any) -> tuple[str, ...]:
    """Return the argument names of a module's forward, in order, without `self`."""
    try:
        return tuple(inspect.signature(kind.forward).parameters)[1:]
    except (TypeError, ValueError):
        return ()


def _takes(kind: Any, names: tuple[str, ...]) -> bool:
    return not set(names).isdisjoint(_names(kind))


def _named_arguments(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(_names(cast(Any, type(module))), args, strict=False)) | kwargs


def _inactive() -> PositionTracker:
    """Return a tracker without a thread, whose hooks return at once."""
    tracker = object.__new__(PositionTracker)
    tracker._thread = -1
    return tracker
