"""The data that a page shows for one link of a head: its logit, split by the parts of the residual stream."""

from typing import Any

from clearhead.errors import OptionError
from clearhead.messages import message
from clearhead.views.grouping import GroupedMatrix

PAIRS = 3  # number of (query part, key part) pairs that are named


def logit_parts(matrix: Any, head: int, query: int, key: int) -> dict[str, Any]:
    """Split one logit as `A.why` does.

    Args:
        matrix: a matrix of a reading's record.
        head, query, key: the indices of the logit in the matrix.
    Returns:
        `logit`; `weight`; `names` of the parts; `query` and `key`, the contribution of each part on that side, two
        lists that both sum to the logit; `pairs`, the strongest [query part, key part, logit].
    Raises:
        OptionError: there is no such token, the map is a rollout, or the record does not know its model.
        CaptureError: the model's residual stream is not known.
    """
    if isinstance(matrix, GroupedMatrix):
        raise OptionError(message("a word or a line has no logit of its own to split. Show tokens."))
    if not hasattr(matrix, "why"):
        raise OptionError(message("a rollout joins all layers and has no logit to split. Turn rollout off."))
    if query >= matrix.shape[2] or key >= matrix.shape[3]:
        raise OptionError(f"there is no link {query} → {key}: the map is {matrix.shape[2]} × {matrix.shape[3]}.")
    if matrix._source is None:
        raise OptionError(
            message(
                "this cannot be split: it takes one pass of the whole model over the text, and this was made otherwise "
                "(an encoder alone, a generation step by step, or a saved record)."
            )
        )
    why = matrix.why(query, key, head=head)
    return {
        "logit": why.logit,
        "weight": float(matrix[0, head, query, key]),
        "names": why.names,
        "query": list(why.query_parts.values()),
        "key": list(why.key_parts.values()),
        "pairs": [list(pair) for pair in why.strongest(PAIRS)],
    }
