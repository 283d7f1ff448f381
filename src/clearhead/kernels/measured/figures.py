"""Figures that `clearhead tune` measured on this machine, in the user's cache folder.

A file of another CPU, of other versions, or that is damaged is ignored.
"""

import errno
import json
import logging
import math
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import torch

from clearhead import __version__
from clearhead.files import discard, unwritable, user_folder
from clearhead.kernels.measured.tasks import DTYPES, TASKS, Cost, Costs
from clearhead.kernels.native.library import cpu_features, cpu_name

VARIABLE = "CLEARHEAD_TUNE"
FORMAT = 3
LARGEST = 1 << 16  # bytes of a file that is read
_ELSEWHERE = "Set XDG_CACHE_HOME to a folder that you may write to."
logger = logging.getLogger("clearhead.kernels")


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured.

    Attributes:
        costs: (task, dtype) -> (ours, torch's); empty where nothing may be used.
        path: where they are kept.
        reason: why there are none, in one line; None where there are.
        damaged: whether there is a file that cannot be read.
    """

    costs: Costs = field(default_factory=dict)
    path: Path | None = None
    reason: str | None = None
    damaged: bool = False


class _Damaged(ValueError):
    """The file is not what `save` writes."""


def file() -> Path:
    """Where the figures are kept: in the user's cache folder, or $XDG_CACHE_HOME."""
    return user_folder("cache") / "costs.json"


def machine() -> dict[str, Any]:
    """What the figures hold for: the CPU, and the versions of clearhead and torch."""
    return {
        "format": FORMAT,
        "cpu": cpu_name(),
        "features": sorted(cpu_features()),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "versions": {"clearhead": __version__, "torch": torch.__version__},
    }


@cache
def load() -> Figures:
    """The figures of this machine; without any, and with the reason, where none may be used. Reads the file once.

    `CLEARHEAD_TUNE=0` leaves the file unread.
    """
    figures = _load()
    if figures.reason is not None:
        logger.debug("no measured costs: %s", figures.reason)
    return figures


def _load() -> Figures:
    if os.environ.get(VARIABLE) == "0":
        return Figures(reason=f"{VARIABLE}=0 turns them off")
    path = file()
    try:
        with path.open("rb") as stream:
            text = stream.read(LARGEST + 1)
        if len(text) > LARGEST:
            raise _Damaged(f"is larger than {LARGEST} bytes")
        data = json.loads(text)
        for name, here in machine().items():
            there = data[name]
            if there != here:
                return Figures(path=path, reason=f"{path} was measured with {name} {there}; here it is {here}")
        return Figures(_read(data["costs"]), path)
    except FileNotFoundError:
        return Figures(path=path, reason="this machine was not measured: run `clearhead tune`")
    except OSError as error:
        return Figures(path=path, reason=f"{path} cannot be read: {error.strerror}", damaged=True)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        reason = f"the file of measured costs is damaged ({error!r}). Run `clearhead tune` to write it again"
        return Figures(path=path, reason=reason, damaged=True)


def _read(data: dict[str, dict[str, Any]]) -> Costs:
    measured: Costs = {}
    for task, by_dtype in data.items():
        for name, lines in by_dtype.items():
            if task not in TASKS or name not in DTYPES:
                raise _Damaged(f"there is no {task} of {name}")
            measured[task, DTYPES[name]] = _cost(lines["native"]), _cost(lines["torch"])
    return measured


def _cost(line: list[float]) -> Cost:
    cost = Cost(*map(float, line))
    if not all(0 <= part < math.inf for part in cost):
        raise _Damaged(f"{cost} is not a cost")
    return cost


def as_data(measured: Costs) -> dict[str, Any]:
    """The figures as they are kept."""
    data: dict[str, Any] = {**machine(), "threads": torch.get_num_threads(), "costs": {}}
    for (task, dtype), (ours, torchs) in measured.items():
        data["costs"].setdefault(task, {})[str(dtype)[6:]] = {"native": list(ours), "torch": list(torchs)}
    return data


def save(measured: Costs) -> Path:
    """Keep the figures: the file is replaced whole, and only its owner may read it.

    Raises:
        OptionError: the folder or the file cannot be written.
    """
    path = file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with NamedTemporaryFile("w", dir=path.parent, prefix=".costs-", delete=False) as stream:  # made with mode 0600
            try:
                json.dump(as_data(measured), stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
                Path(stream.name).replace(path)
            except BaseException:
                discard(Path(stream.name))
                raise
    except OSError as error:
        raise unwritable(path, error, _ELSEWHERE) from None
    load.cache_clear()
    return path


def refuse_unwritable() -> None:
    """Raise the error that `save` would raise, before anything is measured. Writes nothing.

    Raises:
        OptionError: the folder or the file cannot be written.
    """
    path = file()
    try:
        folder = next(parent for parent in path.parents if parent.exists())
        for wrong, code in (
            (not folder.is_dir(), errno.ENOTDIR),
            (not os.access(folder, os.W_OK | os.X_OK), errno.EACCES),
            (path.is_dir(), errno.EISDIR),
        ):
            if wrong:
                raise OSError(code, os.strerror(code))
    except OSError as error:
        raise unwritable(path, error, _ELSEWHERE) from None
