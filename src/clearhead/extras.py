"""Optional libraries: if one is missing, the error names the extra to install."""

from collections.abc import Iterator
from contextlib import contextmanager

from clearhead.errors import ExtraError
from clearhead.messages import message

STUDIO = ("studio", "the studio")  # the arguments of `needs` in the studio


@contextmanager
def needs(extra: str, feature: str) -> Iterator[None]:
    """Import the libraries of an extra inside this block.

    Args:
        extra: its name in `pip install 'clearhead[extra]'`.
        feature: the feature that needs the libraries, as the beginning of a sentence.

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
            raise  # a fault in Clearhead, not a missing library
        if library and isinstance(error, ModuleNotFoundError):
            problem = message(
                "%(feature)s needs %(library)s. Run `pip install 'clearhead[%(extra)s]'`.",
                feature=feature,
                library=library,
                extra=extra,
            )
        else:
            problem = message(
                "%(feature)s needs another version of %(library)s (%(reason)s). "
                "Run `pip install --upgrade 'clearhead[%(extra)s]'`.",
                feature=feature,
                library=library or message("a library"),
                reason=error.msg,
                extra=extra,
            )
        raise ExtraError(problem, name=library) from error


def missing(error: BaseException | None) -> str:
    """Return the library whose import failed, even if another library wrapped the error; "" if none is named."""
    while isinstance(error, ImportError):
        if error.name:
            return error.name.partition(".")[0]
        error = error.__cause__
    return ""
