"""The records of written texts: kept as they were written, or read once more where another process wrote them."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from clearhead.studio.lens.readings import Tell
from clearhead.studio.lens.writing import Text, WritingAsked

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Record
    from clearhead.capture.models.writing import Writing

LATEST: Final = 4  # texts whose queries and keys are kept, so that another head is there at once

_records: "OrderedDict[Any, Record | Callable[[], Record]]" = OrderedDict()
_lock = Lock()


def keep(wanted: WritingAsked, writing: "Writing") -> None:
    """Keep what was observed while a text was written; its matrices are made when they are asked for."""
    if writing.is_read:
        _keep((wanted.model, tuple(writing.ids), wanted.without), writing.generated)


def record_of(loaded: "Loaded", wanted: WritingAsked, text: Text, tell: Tell) -> "Record":
    """Return the record of a written text, with one matrix a layer."""
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
        _records[identity] = record
        _records.move_to_end(identity)
        while len(_records) > LATEST:
            _records.popitem(last=False)
