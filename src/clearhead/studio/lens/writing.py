"""Write with a model in the Lens: check the request, and send each token as soon as the model has written it.

The browser holds the text, and a request carries all of it. So stopping, continuing, and continuing from another token
are the same request, and any process of a studio can answer it. The process that wrote the text before answers sooner:
it has kept the KV cache, and runs the model only on the new tokens.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from clearhead.errors import OptionError
from clearhead.studio.lens import model_list
from clearhead.studio.lens.readings import Readings, Tell
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _, translate

if TYPE_CHECKING:
    from clearhead.capture import Loaded
    from clearhead.capture.models.continuation import Continuation
    from clearhead.capture.models.writing import Writing, WrittenToken

MOST_TOKENS: Final = 256  # tokens written for one request
MOST_TEXT: Final = 4096  # tokens of a text
MOST_SECONDS: Final = 60  # duration of one request
MOST_OFF: Final = 64  # heads switched off
UNFINISHED: Final = 8  # last tokens whose names may change with the next one: they may be parts of a character

Send = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class WritingRequest:
    """A text to continue.

    Attributes:
        prompt: the typed text; with `chat`, a message to a chat model.
        model: a folder or a name.
        written: the tokens after the prompt that the browser already has.
        typed: what the learner typed after them.
        count: how many tokens to write.
        without: heads that are switched off.
    """

    prompt: str
    model: str
    chat: bool = False
    written: tuple[int, ...] = ()
    typed: str = ""
    count: int = 64
    without: tuple[tuple[int, int], ...] = ()


def writing_request(
    prompt: str,
    model: str = "",
    chat: bool = False,
    written: Sequence[int] = (),
    typed: str = "",
    count: int = 64,
    without: Sequence[Sequence[int]] = (),
) -> WritingRequest:
    """Return the request of a form, checked.

    Raises:
        OptionError: a number is out of bounds, or a text contains a lone surrogate.
        TooLong: a text is too long.
    """
    fitting("prompt", prompt)
    fitting("prompt", typed)
    fitting("name", model)
    try:
        (prompt + typed + model).encode()
    except UnicodeEncodeError as error:
        raise OptionError(
            _("the text holds half of a character, which no tokenizer can read. Type it again.")
        ) from error
    if not 1 <= count <= MOST_TOKENS:
        raise OptionError(
            _("%(count)s tokens cannot be written at once. Ask for 1 to %(most)s.", count=count, most=MOST_TOKENS)
        )
    if len(written) > MOST_TEXT or any(number < 0 for number in written):
        raise OptionError(_("the text is too long to go on. Start a new one."))
    heads = tuple((int(layer), int(head)) for layer, head in without)
    if len(heads) > MOST_OFF or any(number < 0 for head in heads for number in head):
        raise OptionError(_("at most %(most)s heads can be switched off.", most=MOST_OFF))
    name = model.strip() or model_list.writes_at_first()
    return WritingRequest(prompt.strip(), name, chat, tuple(written), typed, count, tuple(dict.fromkeys(heads)))


@dataclass(frozen=True, slots=True)
class Text:
    """A text as tokens: those of the prompt, and those after it.

    Attributes:
        prompt: the number of tokens in the prompt.
        sent: the number of tokens that the browser has, prompt included.
    """

    ids: list[int]
    prompt: int
    sent: int


def text_of(loaded: "Loaded", wanted: WritingRequest) -> Text:
    """Return the tokens of a request.

    Raises:
        ModelError: the model does not write, or the text is longer than its maximum.
        OptionError: the text is longer than the studio allows, or contains tokens of another model.
    """
    from clearhead.capture.models import writing

    writing.check_writes(loaded)
    prompt = writing.prompt_ids(loaded, wanted.prompt, chat=wanted.chat)
    typed = writing.more_ids(loaded, wanted.typed) if wanted.typed else []
    ids = [*prompt, *wanted.written, *typed]
    config: Any = getattr(loaded.writer, "config", None)
    if any(number >= getattr(config, "vocab_size", number + 1) for number in ids):
        raise OptionError(_("the text holds tokens of another model. Write it again."))
    if len(ids) > MOST_TEXT:
        raise OptionError(
            _(
                "the text has %(count)s tokens, and at most %(most)s fit here. Shorten it.",
                count=len(ids),
                most=MOST_TEXT,
            )
        )
    writing.check_room(loaded, len(ids))
    return Text(ids, len(prompt), len(prompt) + len(wanted.written))


class Before(Protocol):
    """Access to texts that were written before."""

    def take(self, loaded: "Loaded", ids: Sequence[int], without: tuple[tuple[int, int], ...]) -> "Continuation | None":
        """Return the state from which a text can be continued, if there is one."""
        ...

    def keep(self, wanted: WritingRequest, writing: "Writing") -> None:
        """Keep what was written, even if it was stopped."""
        ...


def write(
    kept: Readings, wanted: WritingRequest, tell: Tell, send: Send, before: Before | None = None
) -> dict[str, Any]:
    """Write, sending `{"start": …}` and then each token; return `{"end": reason}`.

    Args:
        kept: the cache that holds the models.
        wanted: the request.
        tell: called before each token; an exception that it raises stops the writing.
        send: called with each part of the answer.
        before: gives access to earlier texts, and keeps this one.

    Raises:
        ModelError, OptionError: as in `text_of`; or a head that is switched off does not exist.
    """
    from clearhead.capture.models.writing import Writing

    loaded = kept.loaded(wanted.model, tell)
    text = text_of(loaded, wanted)
    names = Names(loaded, text.ids)
    send({"start": _start(loaded, wanted, text, names)})
    after = before.take(loaded, text.ids, wanted.without) if before is not None else None
    writing = Writing(loaded, text.ids, known=text.sent, without=wanted.without, after=after)
    try:
        with writing:
            return {"end": _written(writing, text, wanted, names, tell, send)}
    finally:
        if before is not None:
            before.keep(wanted, writing)


def _written(
    writing: "Writing", text: Text, wanted: WritingRequest, names: "Names", tell: Tell, send: Send
) -> Literal["done", "full", "time", "count"]:
    """Write and send each token; return why the writing ended."""
    started, place = time.monotonic(), text.sent
    while (written := len(writing.ids) - len(text.ids)) < wanted.count:
        tell("writing", written, wanted.count)
        for token in writing.step():
            send({"token": _as_data(token, place, names)})
            place += 1
        if writing.ended:
            return "done" if len(writing.ids) < writing.max_length else "full"
        if len(writing.ids) >= max(MOST_TEXT, len(text.ids) + 1):
            return "full"
        if time.monotonic() - started > MOST_SECONDS:
            return "time"
    return "count"


class Names:
    """The tokens of a growing text, as readable text.

    A character may take several tokens, so the names of the last few change when the next one arrives.
    """

    def __init__(self, loaded: "Loaded", ids: Sequence[int]) -> None:
        from clearhead.capture.models.token_text import letters

        self._letters, self._tokenizer = letters, loaded.tokenizer
        self.ids, self.names = list(ids), letters(loaded.tokenizer, ids)
        self.special = set(loaded.tokenizer.all_special_ids)

    def put(self, place: int, number: int) -> dict[int, str]:
        """Add a token at its place; return the names that this changed, including its own."""
        del self.ids[place:], self.names[place:]
        self.ids.append(number)
        first = max(0, place - UNFINISHED)
        fresh = self._letters(self._tokenizer, self.ids[first:])
        old = self.names[first:]
        self.names[first:] = fresh
        return {first + i: name for i, name in enumerate(fresh) if i >= len(old) or name != old[i]}

    def of(self, number: int) -> str:
        """Return a single token as text."""
        return str(self._letters(self._tokenizer, [number])[0])


def _start(loaded: "Loaded", wanted: WritingRequest, text: Text, names: Names) -> dict[str, Any]:
    from clearhead.capture.models.reading import joined_notes, unknown_note

    note = joined_notes(loaded.note, unknown_note(loaded, text.ids))
    config: Any = getattr(loaded.writer, "config", None)
    return {
        "model": loaded.name,
        "ids": text.ids[: text.sent],
        "tokens": names.names[: text.sent],
        "special": [number in names.special for number in text.ids[: text.sent]],
        "prompt": text.prompt,
        "layers": int(config.num_hidden_layers),
        "heads": int(config.num_attention_heads),
        "note": None if note is None else translate(note),
        "without": [list(head) for head in wanted.without],
    }


def _as_data(token: "WrittenToken", place: int, names: Names) -> dict[str, Any]:
    from clearhead.views.page.packing import pack

    changed = names.put(place, token.token_id)
    weights = token.weights.numpy()[None]
    return {
        "place": place,
        "id": token.token_id,
        "names": changed,
        "special": token.token_id in names.special,
        "p": token.probability,
        "candidates": [[number, names.of(number), chance] for number, chance in token.candidates],
        "row": pack(weights, "u16", float(weights.max(initial=0.0))),
    }
