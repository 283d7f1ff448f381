"""Keep written texts in this process: their records, to show further heads, and their KV caches, to continue them."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from clearhead.studio.lens.continuations import CONTINUATIONS
from clearhead.studio.lens.readings import Readings, Tell, keep
from clearhead.studio.lens.writing import Text, WritingRequest

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Record
    from clearhead.capture.models.continuation import Continuation
    from clearhead.capture.models.writing import Writing

LATEST: Final = 4  # texts whose queries and keys are kept, so that another head can be shown at once

_records: "OrderedDict[Any, Record | Callable[[], Record]]" = OrderedDict()
_lock = Lock()


@dataclass(frozen=True, slots=True)
class Written:
    """The texts that one browser has written.

    Attributes:
        kept: the cache that holds the models.
        browser: the browser's own secret.
    """

    kept: Readings
    browser: str

    def take(self, loaded: "Loaded", ids: Sequence[int], without: tuple[tuple[int, int], ...]) -> "Continuation | None":
        """Return the state from which a text of this browser can be continued, if there is one."""
        return CONTINUATIONS.take(self.browser, loaded, ids, without)

    def keep(self, wanted: WritingRequest, writing: "Writing") -> None:
        """Keep the record, whose matrices are computed on demand, and the state from which the text can continue."""
        if writing.is_read:
            _keep((wanted.model, tuple(writing.ids), wanted.without), writing.generated)
        if (after := writing.continuation()) is not None:
            CONTINUATIONS.put(self.browser, after, self.kept.holds)


def record_of(loaded: "Loaded", wanted: WritingRequest, text: Text, tell: Tell) -> "Record":
    """Return the record of a written text, with one matrix per layer."""
    from clearhead.capture.models.progress import layers_run
    from clearhead.capture.models.writing import read_again

    identity = (wanted.model, tuple(text.ids), wanted.without)
    with _lock:
        kept = _records.get(identity)
    if kept is None:
        writer: Any = loaded.writer
        with layers_run(writer, lambda done, total: tell("reading", done, total)):
            record, _logits = read_again(loaded, text.ids[:-1], wanted.without)
    else:
        record = kept() if callable(kept) else kept
    _keep(identity, record)
    return record


def _keep(identity: Any, record: "Record | Callable[[], Record]") -> None:
    with _lock:
        keep(_records, identity, record, LATEST)
