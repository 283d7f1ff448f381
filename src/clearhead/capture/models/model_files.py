"""Check a model folder before transformers opens it: weights in safetensors only, and no file from elsewhere.

transformers opens the files that the folder names: an index may list a pickle, and a config may name an adapter, a
kernel of the Hub, or another file. These names are checked here, so that no file can bypass `use_safetensors=True`.
"""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from clearhead.errors import ModelError
from clearhead.messages import message

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
LARGEST_SETTINGS: Final = 8 << 20  # bytes of a JSON file that is not a vocabulary
LARGEST_VOCABULARY: Final = 512 << 20
LARGEST_HEADER: Final = 100 << 20  # bytes, as in safetensors' own format
MOST_FILES: Final = 10_000
# Counts in a config, and their upper bounds. transformers creates an object for each label, even if the model has none:
# a billion labels took all memory.
# (`vision_feature_layer` is an index, and may be -2.)
MOST: Final = (
    (re.compile(r"(?:(?:^|_)(?:num|n)_\w*(?:layer|head)|^\w*(?:layers|heads|experts|blocks))$"), 10_000),
    (re.compile(r"num_labels$"), 100_000),
    (re.compile(r"vocab_size$"), 10_000_000),
)
_VOCABULARIES: Final = ("tokenizer.json", "vocab.json")
_WEIGHT_FILE_NAME: Final = re.compile(r"[^/\\\x00-\x1f]{1,250}\.safetensors")
_WAY_OUT: Final = message("Save it again with model.save_pretrained(folder), which writes safetensors.")


def check_model_files(folder: Path) -> None:
    """Check that the files that transformers opens are regular files inside the folder, and that it names no others.

    Raises:
        ModelError: a file is not; the message says which, and why.
    """
    try:
        _check(folder)
    except ModelError as error:
        raise ModelError(
            message("%(model)s cannot be loaded as a model: %(why)s", model=folder, why=error.args[0])
        ) from None


def _check(folder: Path) -> None:
    _check_regular_files(folder)
    config = _settings(folder, "config.json")
    _check_config(config)
    for name in (
        "tokenizer_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "generation_config.json",
    ):
        if (folder / name).exists():
            _check_paths(folder, name, _settings(folder, name))
    for name in _VOCABULARIES:
        if (folder / name).exists() and (folder / name).stat().st_size > LARGEST_VOCABULARY:
            raise _wrong(name, message("has more than %(most)s bytes.", most=f"{LARGEST_VOCABULARY:,}"))
    if (folder / "adapter_config.json").exists():
        why = message(
            "is a PEFT adapter, which names another model and may hold a pickle. Merge it into its model first."
        )
        raise _wrong("adapter_config.json", why)
    for name in _weights(folder, config):
        _check_header(folder / name)


def _wrong(name: str, why: str) -> ModelError:
    return ModelError(message("%(file)s %(why)s", file=name, why=why))


def _check_regular_files(folder: Path) -> None:
    """Check that every file is a regular file of this folder. A Hugging Face snapshot may link into its `blobs`."""
    home = folder.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    with os.scandir(folder) as entries:
        for number, entry in enumerate(entries):
            if number >= MOST_FILES:
                raise ModelError(message("the folder holds more than %(most)s files.", most=MOST_FILES))
            if entry.is_symlink():
                try:
                    target = Path(entry.path).resolve(strict=True)
                except (OSError, RuntimeError):
                    raise _wrong(entry.name, message("is a broken link. Put the file itself here.")) from None
                if not any(target.is_relative_to(place) for place in homes):
                    raise _wrong(
                        entry.name, message("is a link that leads out of the model folder. Put the file itself here.")
                    )
            mode = entry.stat().st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise _wrong(entry.name, message("is a pipe, a socket or a device, not a file."))


def _settings(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file."""
    path = folder / name
    if path.stat().st_size > LARGEST_SETTINGS:
        raise _wrong(name, message("has more than %(most)s bytes.", most=f"{LARGEST_SETTINGS:,}"))
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error)[:200] if isinstance(error, ValueError) else message("it is nested too deep")
        why = message("is not valid JSON: %(reason)s", reason=reason)
        raise _wrong(name, why) from None
    if not isinstance(data, dict):
        raise _wrong(name, message("is not a JSON object with names and values."))
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _entries(data: object) -> Iterator[tuple[str, object]]:
    """Yield every name and value, including those of nested objects."""
    waiting = [data]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield from ((str(name), value) for name, value in part.items())
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _check_config(config: dict[str, Any]) -> None:
    for name, value in _entries(config):
        if name.endswith("_implementation") and "/" in str(value):
            why = message(
                "names %(value)s as %(name)s: a kernel of the Hub, which is code.", value=str(value)[:80], name=name
            )
            raise _wrong("config.json", why)
        most = next((most for names, most in MOST if names.search(name)), None)
        if most is not None and isinstance(value, int) and not -1 <= value <= most:
            why = message("has %(name)s = %(value)s.", name=name, value=f"{value:.3g}")
            raise _wrong("config.json", why)


def _check_paths(folder: Path, name: str, settings: dict[str, Any]) -> None:
    """Check settings such as `vocab_file`, which name a file that is opened. A name without a file is harmless."""
    for key, value in _entries(settings):
        if not key.endswith("_file") or not isinstance(value, str):
            continue
        place = folder / value[:4096]
        try:
            outside = place.exists() and not place.resolve().is_relative_to(folder.resolve())
        except (OSError, ValueError, RuntimeError):
            outside = True
        if outside and not (folder / Path(value).name).exists():
            raise _wrong(name, message("names a file outside the model folder as %(name)s.", name=key))


def _weights(folder: Path, config: dict[str, Any]) -> list[str]:
    """Return the names of the files that hold the weights."""
    named = config.get("transformers_weights")
    if named is not None:
        if not isinstance(named, str) or not _WEIGHT_FILE_NAME.fullmatch(named):
            raise _wrong(
                "config.json",
                message("names weights that are not a .safetensors file beside it. %(how)s", how=_WAY_OUT),
            )
        return [named]
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / INDEX).is_file():
        others = sorted(
            path.name for path in folder.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf", ".h5")
        )
        if not others:
            return []  # transformers says what is missing
        why = message("may run code when it is read, so it is not. %(how)s", how=_WAY_OUT)
        raise _wrong(others[0], why)
    listed = _settings(folder, INDEX).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise _wrong(INDEX, message("has no weight_map. %(how)s", how=_WAY_OUT))
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if not _WEIGHT_FILE_NAME.fullmatch(name):
            why = message(
                "names %(name)s, which is not a .safetensors file beside it. %(how)s", name=name[:80], how=_WAY_OUT
            )
            raise _wrong(INDEX, why)
        if not (folder / name).is_file():
            raise _wrong(INDEX, message("names %(name)s, which does not exist.", name=name[:80]))
    return names


def _check_header(path: Path) -> None:
    """Check that the file begins with the length of its header, and that the header fits into the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 10 or length > min(size - 8, LARGEST_HEADER):
            raise _wrong(path.name, message("is damaged or cut off. Copy it again."))
        header = file.read(min(length, 1))
    if header != b"{":
        raise _wrong(path.name, message("is not a safetensors file. %(how)s", how=_WAY_OUT))
