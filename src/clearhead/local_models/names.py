"""The user's models: names for model folders, and the folder of the models that Clearhead fetched.

Names are kept in models.json in the user's configuration folder, fetched models in the user's cache folder.
"""

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from clearhead.errors import ModelError, OptionError
from clearhead.files import expanded, make_private, unwritable, user_folder, whole_file
from clearhead.messages import message

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST: Final = 200  # names
LARGEST: Final = 1 << 20  # bytes of models.json
_ELSEWHERE: Final = message("Make room there, or set XDG_CONFIG_HOME to a folder that you may read and write.")


def cache_folder() -> Path:
    """Return where fetched models are kept: in the user's cache folder, or $XDG_CACHE_HOME."""
    return user_folder("cache") / "models"


def names_file() -> Path:
    """Return the file of the names: in the user's configuration folder, or $XDG_CONFIG_HOME."""
    return user_folder("config") / "models.json"


def named_models() -> dict[str, Path]:
    """Return name -> folder, in the order they were added.

    Raises:
        ModelError: the file of the names is damaged.
    """
    file = names_file()
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError
        names = json.loads(file.read_text(encoding="utf-8"))
        if not all(isinstance(name, str) and isinstance(path, str) for name, path in names.items()):
            raise ValueError
    except (FileNotFoundError, NotADirectoryError):  # NotADirectoryError: the home folder is below a plain file
        return {}
    except OSError as error:
        raise ModelError(
            message(
                "%(file)s, the list of your models, cannot be read: %(why)s. %(remedy)s",
                file=file,
                why=error.strerror or str(error),
                remedy=_ELSEWHERE,
            )
        ) from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise ModelError(
            message("%(file)s, the list of your models, cannot be read. Remove it and add them again.", file=file)
        ) from error
    return {name: Path(path) for name, path in names.items()}


def folder_of(name: str) -> Path | None:
    """Return the folder that a name stands for; None where there is no such name, or the list cannot be read."""
    with suppress(ModelError):
        return named_models().get(name)
    return None


def add_model(name: str, folder: Path, *, taken: tuple[str, ...] = ()) -> Path:
    """Give a model folder a name, and return the folder, resolved.

    Args:
        name: letters, digits, ".", "_" and "-". A name that exists is given to the new folder.
        folder: holds config.json.
        taken: names that are not free.

    Raises:
        OptionError: the name is not free or not of that form, or there are too many, or the list cannot be written.
        ModelError: there is no model in the folder.
    """
    if not NAME.fullmatch(name):
        raise OptionError(
            message(
                "%(name)r cannot be the name of a model. Use up to 64 letters, digits, dots, dashes and underscores.",
                name=name,
            )
        )
    if name in taken:
        raise OptionError(
            message("%(name)s is the name of a model that Clearhead knows. Choose another name.", name=name)
        )
    folder = expanded(folder).resolve()
    if not (folder / "config.json").is_file():
        raise ModelError(
            message(
                "%(path)s has no config.json, so it is not a model folder. Give the folder that holds it.", path=folder
            )
        )
    names = named_models()
    if name not in names and len(names) >= MOST:
        raise OptionError(message("there are %(most)s names already. Remove one first.", most=MOST))
    _write({**names, name: folder})
    return folder


def remove_model(name: str) -> Path:
    """Remove a name, and return the folder it stood for, which stays as it is.

    Raises:
        OptionError: there is no such name.
    """
    names = named_models()
    if name not in names:
        known = ", ".join(names) or message("none")
        raise OptionError(message("no model has the name %(name)r. Names: %(known)s.", name=name, known=known))
    folder = names.pop(name)
    _write(names)
    return folder


def _write(names: dict[str, Path]) -> None:
    """Replace the file of the names at once, so that no reader sees half of it."""
    file = names_file()
    try:
        make_private(file.parent)
        with whole_file(file, _ELSEWHERE) as draft:
            listed = {name: str(folder) for name, folder in names.items()}
            draft.write_text(json.dumps(listed, ensure_ascii=False, indent=1), encoding="utf-8")
    except OSError as error:
        raise unwritable(file, error, _ELSEWHERE) from error
