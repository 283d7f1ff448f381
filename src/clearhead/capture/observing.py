"""observe(): record a model's attention while it runs, and remove every hook afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import torch
from torch import nn

from clearhead.capture.adapters import transformers_interface
from clearhead.capture.observer import Observer
from clearhead.capture.record import Record
from clearhead.errors import OptionError


@contextmanager
def observe(
    model: nn.Module,
    *,
    layers: Iterable[int | str] | None = None,
    heads: Iterable[int] | None = None,
    max_bytes: int | str | None = None,
    values: bool = False,
) -> Iterator[Record]:
    """Record what a model attends to while it runs.

    The model's own kernel still computes its output, which stays the same bit for bit (to rounding where torch would
    have used a C++ fast path of nn.Transformer, or a compiled function); queries and keys are kept. Every hook is
    removed on leaving, also after an exception. Observers may be nested: each records every call of its own model.
    Only calls in the thread that observes are recorded.

    Args:
        model: a Hugging Face model, or any module whose attention goes through Hugging Face's attention interface, a
            function of torch's or Clearhead's, or products and a softmax of its own (docs/reference/observe.md).
        layers: which attention modules, by index in layer order or by name; None = all.
        heads: which query heads; None = all.
        max_bytes: stop recording before queries and keys take more than this, as in 500_000_000 or "500MB". The model
            keeps running, a warning says so, and `record.missed` lists what was not kept.
        values: keep values too, for `value_weighted` and `gradient_times`; values are not known for attention found by
            softmax tracing.

    Yields:
        Record, filled as the model runs. A Hugging Face model asked for `output_attentions=True` gets the same matrices
        in `outputs.attentions`, where its kernel makes no weights: code that expects tensors takes `.to_dense()`.

    Raises:
        OptionError: model is not a module, a layer or head does not exist or is not an index, none is requested, or
            max_bytes is not a size.
        CaptureError: on leaving, if the model ran and no attention was seen in it.

    Memory: queries and keys (if they fill their storage, they are shared with the model until one of the two is written
    to; else copied); the model's own masks; position terms that differ from query to query.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> size = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 7}
        >>> model = BertModel(BertConfig(vocab_size=11, **size)).eval()
        >>> with observe(model) as record:
        ...     out = model(torch.tensor([[1, 2, 3, 4, 5]]))
        >>> {name: A.shape for name, A in record.items()}
        {'encoder.layer.0.attention.self': (1, 3, 5, 5), 'encoder.layer.1.attention.self': (1, 3, 5, 5)}
    """
    if not isinstance(model, nn.Module):
        raise OptionError(f"model is a {type(model).__name__}, expected a torch.nn.Module. Pass the model itself.")
    indices = _checked_list("layers", layers, names=True), _checked_list("heads", heads, names=False)
    observer = Observer(model, *indices, max_bytes=max_bytes, values=values)
    with transformers_interface.listening(observer.record_call, observer.follow), observer.watching():
        yield observer.record
    observer.check_something_was_seen()


def _checked_list(name: str, requested: Any, *, names: bool) -> Any:
    """Return the requested layers or heads as a list; None for all.

    Raises:
        OptionError: not a list, empty, or an entry of the wrong type.
    """
    if requested is None:
        return None
    types, expected = ((Integral, str), "indices or names") if names else ((Integral,), "indices")
    if isinstance(requested, (*types, str, bytes)) or not isinstance(requested, Iterable):
        raise OptionError(f"{name} is {requested!r}, expected a list of {expected}. Write {name}=[{requested!r}].")
    if isinstance(requested, Mapping):  # transformers' prune_heads takes layer -> heads; here only the keys would count
        raise OptionError(f"{name} is a {type(requested).__name__}, expected a list of {expected}. Write {name}=[…].")
    entries = [item.item() if isinstance(item, torch.Tensor) and item.numel() == 1 else item for item in requested]
    for entry in entries:
        if isinstance(entry, bool) or not isinstance(entry, types):
            raise OptionError(f"{name} has {entry!r} in it, expected {expected}. Write {name}=[0], for example.")
    if not entries:
        raise OptionError(f"{name} names none, so nothing would be recorded. Name some, or leave it out for all.")
    return entries
