"""Find the files of Hugging Face datasets written by `Dataset.save_to_disk`, without the library `datasets`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from clearhead.errors import ModelError, OptionError
from clearhead.files import unreadable

STATE, SPLITS = "state.json", "dataset_dict.json"


def is_dataset(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (folder / STATE).is_file() or (folder / SPLITS).is_file()


def arrow_files(folder: Path, split: str | None) -> list[Path]:
    """Return the Arrow files of a dataset, or of one split of several, in order.

    Raises:
        OptionError: there are several splits and none was named, or there is no such split.
        ModelError: the folder is damaged, or the dataset is a selection whose rows are listed in a separate file.
    """
    if (folder / SPLITS).is_file():
        splits = [str(name) for name in _json(folder / SPLITS).get("splits", [])]
        folder = folder / _split(folder, splits, split)
    elif split is not None:
        raise OptionError(f"{folder} has no splits, so it takes no --split. Leave it out.")
    state = _json(folder / STATE)
    if state.get("_indices_data_files"):
        raise ModelError(
            f"{folder} is a selection of a dataset, whose rows are listed apart. Write it with "
            "`dataset.flatten_indices().save_to_disk(…)` and give that folder."
        )
    try:
        return [folder / str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{folder / STATE} lists no files. Save the dataset again with `save_to_disk`.") from error


def _split(folder: Path, splits: list[str], split: str | None) -> str:
    if split is None and len(splits) == 1:
        return splits[0]
    if split not in splits:
        named = "names none" if split is None else f"is {split!r}"
        raise OptionError(f"--split {named}, and {folder} has the splits {', '.join(splits) or 'none'}. Name one.")
    return split


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error, "a dataset's folder") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} holds no object. Save the dataset again with `save_to_disk`.")
    return data
