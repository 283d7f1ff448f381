"""The notebook widget: the same ES module, live, with tiles and links asked of Python as one zooms and points."""

from typing import TYPE_CHECKING, Any

from clearhead.errors import ClearheadError
from clearhead.extras import needs
from clearhead.views import module
from clearhead.views.answers import answer
from clearhead.views.payload import payload

with needs("views", "the notebook widget"):
    import anywidget
    import traitlets

if TYPE_CHECKING:
    from clearhead.capture import Reading


class AttentionWidget(anywidget.AnyWidget):
    """A reading in a notebook: the last expression of a cell, or `display(AttentionWidget(reading))`.

    Args:
        reading: one text or picture through one model; kept, to answer what is asked while one zooms and points.
        second: the same through another model, to show heads less its own and how far apart they are.

    Raises:
        OptionError: the two have not as many tokens.

    Attributes:
        layer, head: the head that is open, -1 for none; setting them opens another.
        token, side: the token pointed at and its line, "query" or "key".
        order: "layer", or the score the grid is ordered by.
        pin: what heads are shown less of: "layer.head", "other" for the same place in the second model, "" for none.
    """

    _esm = module.one_module()
    _css = module.style()
    payload = traitlets.Dict().tag(sync=True)
    layer = traitlets.Int(-1).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    token = traitlets.Int(-1).tag(sync=True)
    side = traitlets.Enum(["query", "key"], "query").tag(sync=True)
    order = traitlets.Unicode("layer").tag(sync=True)
    pin = traitlets.Unicode("").tag(sync=True)
    live = traitlets.Bool(True).tag(sync=True)

    def __init__(self, reading: "Reading", second: "Reading | None" = None, **kwargs: Any) -> None:
        data = payload(reading, second=second, live=True)
        super().__init__(payload=data, **{**data["first"], **kwargs})
        self._reading, self._second = reading, second
        self.on_msg(self._answer)

    def _answer(self, _widget: Any, question: Any, _buffers: Any) -> None:
        """Answer a question under the number it came with; a question that makes no sense is answered with why."""
        try:
            found = answer(self._reading, question, self._second)
        except ClearheadError as error:
            found = {"error": str(error)}
        self.send({"id": question.get("id"), "answer": found})
