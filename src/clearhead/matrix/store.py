"""Saving a matrix and reading it back: what it is made of, in safetensors. No pickles, nothing of size L·S of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.extras import needs
from clearhead.files import unwritable
from clearhead.matrix.logits import Logits
from clearhead.matrix.matrix import AttentionMatrix
from clearhead.spec import Attention

FORMAT = "clearhead.attention/4"
READABLE = ("clearhead.attention/1", "clearhead.attention/2", "clearhead.attention/3", FORMAT)


class Saved(dict[str, AttentionMatrix]):
    """What `load` gives: name -> the last matrix saved under it; `calls(name)` gives all of them, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, list[AttentionMatrix]] = {}
        self._places: dict[str, list[Any]] = {}

    def calls(self, name: str) -> tuple[AttentionMatrix, ...]:
        """Every matrix saved under a name, oldest first."""
        return tuple(self._calls[name])

    def places(self, name: str) -> tuple[Any, ...]:
        """What was saved of where the queries and keys of each call stand; None where nothing was."""
        return tuple(self._places[name])

    def _add(self, name: str, matrix: AttentionMatrix, place: Any) -> None:
        self[name] = matrix
        self._calls.setdefault(name, []).append(matrix)
        self._places.setdefault(name, []).append(place)


def save(matrices: Mapping[str, AttentionMatrix] | AttentionMatrix, path: str | Path) -> None:
    """Write matrices to one safetensors file: queries, keys, masks, biases, sinks, values and lse where known.

    Args:
        matrices: one matrix, or name -> matrix; of a Record every call of every module, and where its queries and keys
            stand in the text.
        path: the file to write; it is replaced. A link is followed, and a device or a pipe is written to.

    Raises:
        ExtraError: safetensors is not installed.
        OptionError: the file cannot be written.

    Memory: a mask or bias that several matrices share is written once, and so are keys that one cache shares over its
        calls; one stretched along an axis is written small; a rule that is not a band is written as its L×S table.

    Example:
        >>> import tempfile, torch
        >>> q = torch.randn(1, 2, 5, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save({"layer 0": AttentionMatrix(q, q, is_causal=True)}, f"{folder}/a.safetensors")
        ...     load(f"{folder}/a.safetensors")
        {'layer 0': AttentionMatrix(B=1, H=2, L=5, S=5, torch.float32, cpu)}
    """
    with needs("models", "saving a matrix"):
        from safetensors import SafetensorError
        from safetensors.torch import save as to_bytes
        from safetensors.torch import save_file

    whole: dict[tuple[Any, ...], tuple[str, Tensor]] = {}
    entries = []
    for index, (name, matrix, place) in enumerate(_every(matrices)):
        logits = matrix._logits
        parts: dict[str, Tensor | None] = {"query": logits.query, "key": logits.key, **logits.attention.tensors()}
        if logits.attention.rule is not None:  # a rule is code: what it allows is written instead
            parts["allow"] = logits.allowed(range(logits.shape[2]))
        parts |= {"value": matrix._value, "lse": matrix._lse}
        places = {}
        for part, tensor in parts.items():
            if tensor is None:
                continue
            identity, length = _identity(tensor)
            known, longest = whole.get(identity, (f"{index}.{part}", tensor))
            if length > _identity(longest)[1]:
                longest = tensor
            whole[identity] = known, longest
            places[part] = [known, length]
        numbers = logits.attention.saved_numbers()
        entries.append({"name": name, "tensors": places, "options": numbers, "place": place})
    tensors = {known: _small(tensor.detach()) for known, tensor in whole.values()}
    metadata = {"format": FORMAT, "matrices": json.dumps(entries)}
    try:
        # save_file renames a new file into place, which would replace a link or a device such as /dev/full itself.
        if Path(path).exists() and not Path(path).is_file():
            Path(path).write_bytes(to_bytes(tensors, metadata))
        else:
            save_file(tensors, os.path.realpath(path), metadata)
    except (OSError, ValueError, SafetensorError) as error:
        raise unwritable(path, error) from error


def load(path: str | Path) -> Saved:
    """Read what `save` wrote: name -> matrix, in the order written. One matrix saved alone has the name "".

    Of a name with several calls the last is given, and all by `.calls(name)`; `Record.of` makes a record of them again.

    Raises:
        OptionError: the file is not there, or was not written by `save`.
    """
    with needs("models", "loading a matrix"):
        from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):  # noqa: PTH113 — Path.is_file raises where the name is too long
        raise OptionError(f"{path} is not there. Give a file that clearhead.matrix.save wrote.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") not in READABLE:
                raise OptionError(
                    f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}. "
                    "Give a file that clearhead.matrix.save wrote."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise OptionError(
            f"{path} is not a safetensors file: {error}. Give a file that clearhead.matrix.save wrote."
        ) from error
    saved = Saved()
    for entry in json.loads(metadata["matrices"]):
        parts: dict[str, Any] = {part: _cut(tensors, place) for part, place in entry["tensors"].items()}
        value, lse = parts.pop("value", None), parts.pop("lse", None)
        query, key = parts.pop("query"), parts.pop("key")
        bare = AttentionMatrix(query, key, value=value)
        logits = Logits(query, key, _attention(parts, entry["options"]))
        saved._add(entry["name"], bare._like(logits, value, lse), entry.get("place"))
    return saved


def _attention(tensors: dict[str, Any], options: dict[str, Any]) -> Attention:
    """The attention of a file, by the names of its fields."""
    if "tilt" in tensors:  # formats 1 to 3
        tensors["key_bias"] = tensors.pop("tilt")
    if "is_causal" in options:  # format 1
        reach, first_query = (None, 0 if options["is_causal"] else None), 0
    elif "reach" in options:  # formats 2 and 3
        reach, first_query = tuple(options["reach"]), options["alibi_offset"]
    else:
        return Attention(**tensors, **options)
    return Attention.of(
        options["scale"], reach=reach, first_query=first_query, softcap=options["softcap"], **tensors
    )  # fmt: skip


def _every(
    matrices: Mapping[str, AttentionMatrix] | AttentionMatrix,
) -> Iterator[tuple[str, AttentionMatrix, Any]]:
    """Every matrix with its name and, of a record, where it stands; every call, where a name has several."""
    if isinstance(matrices, AttentionMatrix):
        yield "", matrices, None
        return
    calls, places = getattr(matrices, "calls", None), getattr(matrices, "places", None)
    for name, matrix in matrices.items():
        stored = (matrix,) if calls is None else calls(name)
        where = (None,) * len(stored) if places is None else places(name)
        for call, place in zip(stored, where, strict=True):
            yield name, call, place


def _identity(tensor: Tensor) -> tuple[tuple[Any, ...], int]:
    """What a tensor shares with others that begin as it does along axis 2, and how long it is there."""
    if tensor.dim() != 4:
        return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype), 0
    batch, heads, length, width = tensor.shape
    return (tensor.data_ptr(), (batch, heads, width), tensor.stride(), tensor.dtype), length


def _cut(tensors: Mapping[str, Tensor], place: str | list[Any]) -> Tensor:
    """A tensor of the file, or the beginning of one that later calls made longer."""
    if isinstance(place, str):  # formats 1 and 2
        return tensors[place]
    tensor, length = tensors[place[0]], place[1]
    return tensor[:, :, :length] if tensor.dim() == 4 and tensor.shape[2] > length > 0 else tensor


def _small(tensor: Tensor) -> Tensor:
    """A tensor stretched along an axis (stride 0), unstretched: masks are, and broadcast again when read."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor.clone(memory_format=torch.contiguous_format)
