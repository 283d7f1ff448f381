"""The notebook widget: the page's ES module, which asks Python for tiles and links as the reader zooms and points."""

from typing import TYPE_CHECKING, Any

from clearhead.errors import ClearheadError, OptionError
from clearhead.extras import needs
from clearhead.printing import count
from clearhead.views.page import es_module
from clearhead.views.page.payload import payload
from clearhead.views.page.questions import answer
from clearhead.views.page.record_reading import reading_of

with needs("views", "the notebook widget"):
    import anywidget
    import traitlets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clearhead.capture import Reading, Record


class AttentionWidget(anywidget.AnyWidget):
    """A reading in a notebook: the last expression of a cell, or `display(AttentionWidget(reading))`.

    Args:
        reading: one text or picture through one model, or a record from `observe`. It is kept to answer the page's
            questions.
        second: the same through another model, to show the difference of heads and their divergence.
        tokens, decoder_tokens: for a record, the names of its positions, as in `Record.to_html`.

    Raises:
        OptionError: the two differ in their number of tokens, or the tokens do not match the positions.
        TypeError: the argument is neither a reading nor a record.

    Attributes:
        layer, head: the open head, -1 for none; setting them opens another one.
        token, side: the token pointed at and its line, "query" or "key".
        order: "layer", or the score by which the grid is ordered.
        pin: the head that is subtracted: "layer.head", "other" for the same place in the second model, "" for none.
    """

    _esm = es_module.one_module()
    _css = es_module.notebook_style()
    payload = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(-1).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    token = traitlets.Int(-1).tag(sync=True)
    side = traitlets.Enum(["query", "key"], "query").tag(sync=True)
    order = traitlets.Unicode("layer").tag(sync=True)
    pin = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)

    def __init__(
        self,
        reading: "Reading | Record",
        second: "Reading | Record | None" = None,
        *,
        tokens: "Sequence[str] | None" = None,
        decoder_tokens: "Sequence[str] | None" = None,
        **kwargs: Any,
    ) -> None:
        reading = _as_reading(reading, tokens, decoder_tokens)
        second = None if second is None else _as_reading(second, tokens, decoder_tokens)
        data = payload(reading, second=second, live=True)
        super().__init__(payload=data, **{**data["first"], **kwargs})
        self._reading, self._second = reading, second
        self.on_msg(self._answer)

    def __repr__(self) -> str:
        """What a page shows where no widget can run, such as a notebook on GitHub; anywidget cuts it at 110 letters."""
        name = self._reading.model_name
        name = name if len(name) <= 30 else f"…{name[-29:]}"
        return f"AttentionWidget({name!r}, {count(len(self._reading.tokens), 'token')}): run the cell to see it"

    def _answer(self, _widget: Any, question: Any, _buffers: Any) -> None:
        """Answer a question under its own id. An invalid question is answered with its error."""
        try:
            reply = answer(self._reading, question, self._second)
        except ClearheadError as error:
            reply = {"error": str(error)}
        self.send({"id": question.get("id"), "answer": reply})


def _as_reading(
    given: "Reading | Record", tokens: "Sequence[str] | None", decoder_tokens: "Sequence[str] | None"
) -> "Reading":
    """Return a reading unchanged, and a record as a reading."""
    from clearhead.capture import Record

    if isinstance(given, Record):
        return reading_of(given, tokens=tokens, decoder_tokens=decoder_tokens)
    if not hasattr(given, "record") or not hasattr(given, "tokens"):
        raise TypeError(
            f"AttentionWidget takes a Reading or a Record, not {type(given).__name__}. Give what capture.read "
            "returns, or the record of observe."
        )
    if tokens is not None or decoder_tokens is not None:
        raise OptionError("tokens were given with a reading, which has its own. Leave them out, or give its record.")
    return given
