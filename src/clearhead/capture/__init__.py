"""From a model to a record: run it as it is, keep its queries and keys, ask afterwards. See README.md."""

from clearhead.capture.models import Loaded, demo_folder, load
from clearhead.capture.observing import observe
from clearhead.capture.reading import Reading, read
from clearhead.capture.record import Missed, Record

__all__ = ["Loaded", "Missed", "Reading", "Record", "demo_folder", "load", "observe", "read"]
