"""The optional libraries: where one is missing, an error says which extra to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from clearhead.errors import ExtraError
from clearhead.messages import message

STUDIO = ("studio", "the studio")  # the extra, and what needs it


@contextmanager
def needs(extra: str, what: str) -> Iterator[None]:
    """Import the libraries of an extra inside this block.

    Args:
        extra: its name in `pip install 'clearhead[extra]'`.
        what: what needs them, as the beginning of a sentence.

    Raises:
        ExtraError: a library is not installed, or is too old.

    >>> with needs("views", "a figure"):
    ...     import no_such_library
    Traceback (most recent call last):
        ...
    clearhead.errors.ExtraError: a figure needs no_such_library. Run `pip install 'clearhead[views]'`.
    """
    try:
        yield
    except ExtraError:
        raise
    except ImportError as error:
        library = missing(error)
        if library == "clearhead":
            raise  # a fault of ours and not a missing library
        if library and isinstance(error, ModuleNotFoundError):
            problem = message(
                "%(what)s needs %(library)s. Run `pip install 'clearhead[%(extra)s]'`.",
                what=what,
                library=library,
                extra=extra,
            )
        else:
            problem = message(
                "%(what)s needs another version of %(library)s (%(why)s). "
                "Run `pip install --upgrade 'clearhead[%(extra)s]'`.",
                what=what,
                library=library or message("a library"),
                why=error.msg,
                extra=extra,
            )
        raise ExtraError(problem, name=library) from error


def missing(error: BaseException | None) -> str:
    """The library that an import failed for, also where another library has wrapped the error; "" if none is named."""
    while isinstance(error, ImportError):
        if error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return ""
