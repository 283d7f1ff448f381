"""The models that the Lens offers by name, and the background download of the chat model at the first start."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from clearhead.errors import ClearheadError, ModelError
from clearhead.studio.text.translation import explained

OWN: Final = ("all-MiniLM-L6-v2", "SmolLM2-135M-Instruct", "untrained", "induction")  # as capture.load names them
CHAT: Final = OWN[1]
WRITERS: Final = (CHAT, "induction")
_progress: dict[str, Any] = {}  # of the download: doing, done, total; or error


class _Stopped(Exception):
    """The studio is closing; the download resumes at the next start."""


def names(shared: bool) -> list[str]:
    """Return the names of the models that can be used; in a shared studio only Clearhead's own."""
    from clearhead.local_models.chat_model import has_chat_model
    from clearhead.local_models.names import named_models

    own = [name for name in OWN if name != CHAT or has_chat_model()]
    if shared:
        return own
    try:
        return [*own, *named_models()]
    except ModelError:
        return own


def writes_at_first() -> str:
    """Return the default model for writing: the chat model, once it is downloaded."""
    from clearhead.local_models.chat_model import has_chat_model

    return CHAT if has_chat_model() else "induction"


def chat_state() -> dict[str, Any]:
    """Return whether the chat model is `here`, or the state of its download: `doing`, `done`, `total`, `error`."""
    from clearhead.local_models.chat_model import has_chat_model

    return {"here": True} if has_chat_model() else {"here": False, **_progress}


@contextmanager
def fetching() -> Iterator[None]:
    """Inside the block, fetch the chat model in the background, unless it is here or the user refuses it."""
    from clearhead.local_models import chat_model

    stop = threading.Event()

    def tell(doing: str, done: int, total: int) -> None:
        if stop.is_set():
            raise _Stopped
        _progress.update(doing=doing, done=done, total=total)

    def work() -> None:
        try:
            chat_model.fetch_chat_model(tell)
        except _Stopped:
            return
        except ClearheadError as error:
            _progress.update(doing="failed", error=explained(error))

    thread = threading.Thread(target=work, name="chat-model", daemon=True)
    if not chat_model.is_refused() and not chat_model.has_chat_model():
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if thread.ident is not None:
            thread.join(timeout=5)
