"""Every error that Clearhead raises.

A message has three parts: what was wrong, what was expected, how to fix it; with the caller's own shapes and axis
letters. Each class also derives from the built-in type torch raises for the same mistake, so that code written for
torch keeps working.
"""

from collections.abc import Sequence

AXES = {2: "L,D", 3: "B,L,D", 4: "B,H,L,D", 5: "B,G,H,L,D"}


class ClearheadError(Exception):
    """The base class: `except ClearheadError` catches every error this package raises on purpose."""


class ShapeError(ClearheadError, RuntimeError, ValueError, AssertionError):
    """A tensor has a shape that does not fit the others. (torch raises any of the three, depending on the function.)"""


class RankError(ShapeError, IndexError):
    """A tensor has too few axes."""


class PlaceError(ClearheadError, IndexError):
    """An index is outside an attention matrix."""


class DtypeError(ClearheadError, NotImplementedError, TypeError, AssertionError):
    """A tensor has a dtype that does not fit the others, or its memory does not hold its numbers."""


class DeviceError(ClearheadError, RuntimeError):
    """Tensors are on different devices."""


class OptionError(ClearheadError, ValueError, RuntimeError):
    """An option has an invalid value, or contradicts another option."""


class KernelError(ClearheadError, RuntimeError):
    """The kernel named by the caller cannot compute this problem."""


class RanksError(ClearheadError, RuntimeError):
    """The ranks of a distributed call do not agree, or one of them has ended."""


class CacheFullError(ClearheadError, RuntimeError):
    """More positions than a KV cache has room for. Nothing was written."""


class TooLargeError(ClearheadError, RuntimeError):
    """A result would take more memory than the caller allows."""


class CaptureError(ClearheadError, RuntimeError):
    """A model's attention cannot be observed."""


class ModelError(ClearheadError, RuntimeError):
    """A model, a text or a picture cannot be used: it is missing, unreadable or too long.

    Attributes:
        remote_code: True if the only reason is that the model comes with its own code and was not trusted to run it.
        model: the name or path the model was requested by, if known.
    """

    remote_code: bool = False
    model: str | None = None


class PackError(ClearheadError, ValueError):
    """A course pack is wrong. `file` and `line` (1-based, or None) say where.

    Attributes:
        others: the errors of other items of the same pack, so that an author sees all of them at once.
    """

    others: Sequence["PackError"] = ()

    def __init__(self, message: str, *, file: str | None = None, line: int | None = None) -> None:
        place = ":".join(str(part) for part in (file, line) if part is not None)
        super().__init__(f"{place}: {message}" if place else message)
        self.file, self.line = file, line


class ProofError(PackError):
    """An item's programs fail, or show that the item is wrong. `file` and `line` say where, as in PackError."""


class SandboxError(ClearheadError, RuntimeError):
    """This machine cannot confine programs, or the confinement failed to start."""


class ExtraError(ClearheadError, ImportError):
    """An optional library is missing. The message has the pip command, `name` the library."""


class StoreError(ClearheadError, RuntimeError):
    """The learner's database cannot be opened or is damaged.

    Attributes:
        temporary: whether the same request may succeed later: the server is away, or another program holds the file.
    """

    temporary = False


def shape_text(name: str, shape: Sequence[int], axes: str | None = None) -> str:
    """Return a shape in the form that every message uses: `key.shape=(2, 8, 10, 48), axes B,H,S,D`.

    >>> shape_text("key", (2, 8, 10, 48), "B,H,S,D")
    'key.shape=(2, 8, 10, 48), axes B,H,S,D'
    """
    letters = axes if axes is not None else AXES.get(len(shape))
    return f"{name}.shape={tuple(shape)}" + (f", axes {letters}" if letters else "")
