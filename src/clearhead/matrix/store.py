"""Save and load attention matrices as safetensors files that hold their inputs, not the L×S weights."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import ClearheadError, OptionError
from clearhead.extras import needs
from clearhead.files import unwritable, whole_file
from clearhead.matrix.matrix import AttentionMatrix
from clearhead.spec import FIELDS, Attention

_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")  # how safetensors reports an error of the system
FORMAT = "clearhead.attention/4"
LARGEST = 2**53  # a position or a factor of a file; sums of positions stay within 64 bits
READABLE = ("clearhead.attention/1", "clearhead.attention/2", "clearhead.attention/3", FORMAT)


class Saved(dict[str, AttentionMatrix]):
    """The result of `load`: name -> the last matrix saved under it. `calls(name)` returns all of them, oldest first."""

    def __init__(self) -> None:
        super().__init__()
        self._calls: dict[str, list[AttentionMatrix]] = {}
        self._places: dict[str, list[Any]] = {}

    def calls(self, name: str) -> tuple[AttentionMatrix, ...]:
        """Return every matrix saved under a name, oldest first."""
        return tuple(self._calls[name])

    def places(self, name: str) -> tuple[Any, ...]:
        """Return the saved positions of the queries and keys of each call; None where none were saved."""
        return tuple(self._places[name])

    def _add(self, name: str, matrix: AttentionMatrix, place: Any) -> None:
        self[name] = matrix
        self._calls.setdefault(name, []).append(matrix)
        self._places.setdefault(name, []).append(place)


def save(matrices: Mapping[str, AttentionMatrix] | AttentionMatrix, path: str | Path) -> None:
    """Write matrices to one safetensors file: queries, keys, masks, biases, sinks, and values and lse if known.

    Args:
        matrices: one matrix, or name -> matrix. For a Record, every call of every module is saved, with the positions
            of its queries and keys in the text.
        path: the file to write or replace. A link is followed; a device or a pipe is written to.

    Raises:
        ExtraError: safetensors is not installed.
        OptionError: the file cannot be written.

    Memory: a mask or bias that several matrices share is written once, as are keys that the calls of one KV cache
        share. An expanded axis is written once. A rule that is not a band is written as an L×S tensor.

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
        if logits.attention.rule is not None:  # a rule is code, so the mask it evaluates to is written instead
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
        entry = {"name": name, "tensors": places, "options": numbers, "place": place}
        entries.append(entry | ({"first_row": matrix._first_row} if matrix._first_row else {}))
    tensors = {known: _unexpanded(tensor.detach()) for known, tensor in whole.values()}
    metadata = {"format": FORMAT, "matrices": json.dumps(entries)}
    try:
        with whole_file(path) as draft:
            if draft.is_file():
                save_file(tensors, draft, metadata)
            else:  # a device or a pipe, which save_file would replace
                draft.write_bytes(to_bytes(tensors, metadata))
    except SafetensorError as error:
        code = _SYSTEM_ERROR.search(str(error))
        raise unwritable(path, OSError(int(code[1]), os.strerror(int(code[1]))) if code else error) from error


def load(path: str | Path) -> Saved:
    """Read a file that `save` wrote: name -> matrix, in the order written. A matrix saved alone has the name "".

    For a name with several calls this is the last one; `.calls(name)` returns all. `Record.of` converts the result to a
    record.

    Raises:
        OptionError: the file does not exist, was not written by `save`, or is damaged.
    """
    with needs("models", "loading a matrix"):
        from safetensors import SafetensorError, safe_open

    if not os.path.isfile(path):  # noqa: PTH113 — Path.is_file raises where the name is too long
        raise OptionError(f"{path} does not exist. Give a file that clearhead.matrix.save wrote.")
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
    try:
        for entry in json.loads(metadata["matrices"]):
            saved._add(_text(entry["name"]), _matrix(entry, tensors), entry.get("place"))
    except (ClearheadError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise OptionError(
            f"{path} is damaged ({type(error).__name__}: {error}). Save the matrix again with clearhead.matrix.save."
        ) from error
    return saved


def _matrix(entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> AttentionMatrix:
    """Return the matrix of one entry, validated: the kernels would read past the end of a tensor that is too small."""
    parts: dict[str, Any] = {part: _cut(tensors, place) for part, place in entry["tensors"].items()}
    query, key = parts.pop("query"), parts.pop("key")
    value, lse = parts.pop("value", None), parts.pop("lse", None)
    matrix = AttentionMatrix.of(query, key, _attention(parts, entry["options"]), value=value, lse=lse)
    matrix._first_row = _row(entry.get("first_row", 0))
    return matrix


def _row(first: Any) -> int:
    if type(first) is not int or not 0 <= first < LARGEST:
        raise OptionError(f"first_row is {first!r}, expected an integer from 0 to {LARGEST:,}")
    return first


def _text(name: Any) -> str:
    if not isinstance(name, str):
        raise OptionError(f"a matrix has the name {name!r}, expected text")
    return name


def _attention(tensors: dict[str, Any], options: dict[str, Any]) -> Attention:
    """Return the attention of a file, from its tensors and numbers by field name."""
    for name, value in options.items():
        _check_number(name, value)
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


def _check_number(name: str, value: Any) -> None:
    """Check that an option is a number that the kernels can take, or None where the attention may lack it."""
    if isinstance(value, list) and name == "reach":
        for limit in value:
            _check_number("band_low", limit)
    elif value is None and (name not in FIELDS or str(FIELDS[name].schema).endswith("?")):
        return
    elif not isinstance(value, int | float) or not abs(value) < LARGEST:
        raise OptionError(f"{name} is {value!r}, expected a number below {LARGEST:,}")


def _every(
    matrices: Mapping[str, AttentionMatrix] | AttentionMatrix,
) -> Iterator[tuple[str, AttentionMatrix, Any]]:
    """Yield every call of every matrix with its name and, for a record, its positions."""
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
    """Return (a key equal for tensors that are prefixes of one another along axis 2, the length along that axis)."""
    if tensor.dim() != 4:
        return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype), 0
    batch, heads, length, width = tensor.shape
    return (tensor.data_ptr(), (batch, heads, width), tensor.stride(), tensor.dtype), length


def _cut(tensors: Mapping[str, Tensor], place: str | list[Any]) -> Tensor:
    """Return a tensor of the file, or the prefix of one that later calls extended."""
    if isinstance(place, str):  # formats 1 and 2
        return tensors[place]
    tensor, length = tensors[place[0]], place[1]
    return tensor[:, :, :length] if tensor.dim() == 4 and tensor.shape[2] > length > 0 else tensor


def _unexpanded(tensor: Tensor) -> Tensor:
    """Return a copy in which expanded axes (stride 0) have size 1; it broadcasts again when loaded."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor.clone(memory_format=torch.contiguous_format)
