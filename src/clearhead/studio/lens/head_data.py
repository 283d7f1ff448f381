"""The data of the heads that pages embed: `/heads.json`, one head of the demo model over one text."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse, Response

from clearhead.errors import ClearheadError
from clearhead.studio.lens import demo_model
from clearhead.studio.text.embedded_head import LONGEST
from clearhead.studio.text.translation import _, explained
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()


@router.get("/heads.json")
@queued("lens")
def head(
    context: CurrentContext,
    text: Annotated[str, Query(min_length=1, max_length=LONGEST)],
    layer: Annotated[int, Query(ge=0)],
    head: Annotated[int, Query(ge=0)],
) -> Response:
    """What `attention.js` draws of one head alone; or, with status 422, `{"error": message}`."""
    from dataclasses import replace

    from clearhead.capture import Record
    from clearhead.views.page.payload import payload

    needs_queue()
    try:
        whole = demo_model.reading(text)
        matrices = list(whole.record.values())
        if layer >= len(matrices) or head >= matrices[layer].shape[1]:
            most = f"layers 0 to {len(matrices) - 1}, heads 0 to {matrices[0].shape[1] - 1}"
            return JSONResponse({"error": _("The model has %(most)s.", most=most)}, status_code=422)
        name = _("Layer %(layer)s, head %(head)s", layer=layer, head=head)
        alone = replace(whole, record=Record.of({name: matrices[layer].heads(head)}))
        return JSONResponse(payload(alone, text=text))
    except ClearheadError as error:
        return JSONResponse({"error": explained(error)}, status_code=422)
