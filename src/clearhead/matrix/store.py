"""Saving a matrix and reading it back: what it is made of, in safetensors. No pickles, nothing of size L·S of ours."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.extras import needs
from clearhead.files import unwritable
from clearhead.matrix.logits import Logits
from clearhead.matrix.matrix import AttentionMatrix

FORMAT = "clearhead.attention/2"
_TENSORS = ("query", "key", "allow", "bias", "sinks", "tilt", "alibi")
_OPTIONS = ("scale", "reach", "softcap", "alibi_offset")


def save(matrices: Mapping[str, AttentionMatrix] | AttentionMatrix, path: str | Path) -> None:
    """Write matrices to one safetensors file: queries, keys, masks, biases, sinks, values and lse where known.

    Args:
        matrices: one matrix, or name -> matrix (a Record, say: the last call of each module).
        path: the file to write; it is replaced.

    Raises:
        ExtraError: safetensors is not installed.
        OptionError: the file cannot be written.

    Memory: a mask or bias that several matrices share is written once; one stretched along an axis is written small; a
        rule that is no band is written as its L×S table.

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
        from safetensors.torch import save_file

    named = {"": matrices} if isinstance(matrices, AttentionMatrix) else dict(matrices)
    tensors: dict[str, Tensor] = {}
    known: dict[tuple[Any, ...], str] = {}
    entries = []
    for index, (name, matrix) in enumerate(named.items()):
        logits = matrix._logits
        parts = {part: getattr(logits, part) for part in _TENSORS}
        if logits.ruled is not None:  # a rule is code: what it allows is written instead
            parts["allow"] = logits.allowed(range(logits.shape[2]))
        parts |= {"value": matrix._value, "lse": matrix._lse}
        places = {}
        for part, tensor in parts.items():
            if tensor is None:
                continue
            identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
            if identity not in known:
                known[identity] = f"{index}.{part}"
                tensors[known[identity]] = _small(tensor.detach())
            places[part] = known[identity]
        options = {option: getattr(matrix._logits, option) for option in _OPTIONS}
        entries.append({"name": name, "tensors": places, "options": options})
    try:
        save_file(tensors, str(path), metadata={"format": FORMAT, "matrices": json.dumps(entries)})
    except (OSError, SafetensorError) as error:
        raise unwritable(path, error) from error


def load(path: str | Path) -> dict[str, AttentionMatrix]:
    """Read what `save` wrote: name -> matrix, in the order written. One matrix saved alone has the name "".

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
            if metadata.get("format") != FORMAT:
                raise OptionError(
                    f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}. "
                    "Give a file that clearhead.matrix.save wrote."
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except SafetensorError as error:
        raise OptionError(
            f"{path} is no safetensors file: {error}. Give a file that clearhead.matrix.save wrote."
        ) from error
    found = {}
    for entry in json.loads(metadata["matrices"]):
        parts = {part: tensors[place] for part, place in entry["tensors"].items()}
        value, lse = parts.pop("value", None), parts.pop("lse", None)
        options = {**entry["options"], "reach": tuple(entry["options"]["reach"])}
        bare = AttentionMatrix(parts["query"], parts["key"], value=value)
        found[entry["name"]] = bare._like(Logits(**parts, **options), value, lse)
    return found


def _small(tensor: Tensor) -> Tensor:
    """A tensor stretched along an axis (stride 0), unstretched: masks are, and broadcast again when read."""
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if stride == 0 and size > 1:
            tensor = tensor.narrow(axis, 0, 1)
    return tensor.clone(memory_format=torch.contiguous_format)
