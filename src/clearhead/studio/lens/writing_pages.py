"""Routes of the Lens that writes: a prompt, its answer token by token, the heads behind each token.

Without JavaScript the page shows the whole answer at once (`plain=1`).
"""

import json
from collections.abc import AsyncIterator, Callable
from importlib.util import find_spec
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, Field

from clearhead.errors import ClearheadError
from clearhead.studio.lens import model_list, written_heads
from clearhead.studio.lens.jobs import Job, error_fields
from clearhead.studio.lens.lens_pages import Kept
from clearhead.studio.lens.readings import Tell
from clearhead.studio.lens.without_script import whole_answer
from clearhead.studio.lens.writing import MOST_TOKENS, Send, WritingRequest, write, writing_request
from clearhead.studio.lens.written_records import Written
from clearhead.studio.text.translation import explained
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable
from clearhead.studio.web.security import COOKIE
from clearhead.studio.web.work_queues import Busy, needs_queue, queued

router = APIRouter()

EXAMPLES: Final = (
    {"prompt": "The capital of France is"},
    {"prompt": "When Mary and John went to the store, John gave a drink to"},
    {"prompt": "Why is the sky blue?", "chat": 1},
    {"prompt": "the lighthouse keeper wrote: the ligh", "model": "induction"},
)
TOKENS: Final = 48  # default number of tokens to write

Number = Annotated[int, Field(ge=0, lt=1 << 31)]


class Wanted(BaseModel):
    """The body of the script's request: the text so far, and what to do with it."""

    prompt: str = ""
    model: str = ""
    chat: bool = False
    written: list[Number] = []
    typed: str = ""
    count: int = TOKENS
    without: list[tuple[Number, Number]] = []

    def request(self) -> WritingRequest:
        """Return the checked request. Raises OptionError."""
        return writing_request(self.prompt, self.model, self.chat, self.written, self.typed, self.count, self.without)


class WantedRows(Wanted):
    """Which weights to show: those of one layer, of one of its heads, or the mean over all."""

    layer: Number | None = None
    head: Number | None = None


class WantedWhy(WantedRows):
    """One link of a written text: the place of the token, and the place of the token it was written from."""

    place: Number
    key: Number


@router.get("/lens/write")
@linkable
@queued("writing")
def page(
    request: Request,
    context: CurrentContext,
    kept: Kept,
    prompt: str = "",
    model: str = "",
    chat: bool = False,
    count: Annotated[int, Query(ge=1, le=MOST_TOKENS)] = TOKENS,
    without_script: Annotated[bool, Query(alias="plain")] = False,
) -> HTMLResponse:
    """Show the page. Without JavaScript it writes in its queue, so that a slow model blocks nobody else."""
    shown: dict[str, Any] = {"error": None}
    name = model.strip() or model_list.writes_at_first()
    try:
        wanted = writing_request(prompt or str(EXAMPLES[0]["prompt"]), name, chat, count=count)
        if without_script:
            needs_queue()
            shown = whole_answer(kept, wanted)
    except ClearheadError as error:
        shown = {"error": explained(error)}
    state = {"prompt": prompt or EXAMPLES[0]["prompt"], "model": name, "chat": chat, "count": count}
    return render(
        request,
        "lens/writing.html",
        asked=state,
        examples=EXAMPLES,
        models=model_list.names(context.settings.shared),
        plain=without_script,
        shown=shown,
        most=MOST_TOKENS,
        parquet=find_spec("pyarrow") is not None,
    )


@router.get("/lens/models")
def models(context: CurrentContext) -> Response:
    """Return the names of the models, and how far the chat model's download is."""
    return JSONResponse({"names": model_list.names(context.settings.shared), "chat": model_list.chat_state()})


@router.post("/lens/write")
async def write_on(request: Request, context: CurrentContext, kept: Kept, wanted: Wanted) -> Response:
    """Stream the answer, one line of JSON per token; the last line holds `end` or `error`.

    Closing the connection stops the writing.
    """
    before = Written(kept, request.cookies.get(COOKIE, ""))
    return await _streamed(request, context, wanted, lambda asked, tell, send: write(kept, asked, tell, send, before))


@router.post("/lens/write/heads")
async def heads_that_matter(request: Request, context: CurrentContext, kept: Kept, wanted: Wanted) -> Response:
    """Stream the progress of switching off every head in turn; the last line holds what each changes."""
    return await _streamed(request, context, wanted, lambda asked, tell, _: written_heads.effects(kept, asked, tell))


@router.post("/lens/write/rows")
async def rows(request: Request, context: CurrentContext, kept: Kept, wanted: WantedRows) -> Response:
    """Stream the weights of every written token: of one layer, one head, or the mean over all."""
    return await _streamed(
        request,
        context,
        wanted,
        lambda asked, tell, _: written_heads.rows(kept, asked, tell, wanted.layer, wanted.head),
    )


@router.post("/lens/write/table")
async def table(request: Request, context: CurrentContext, kept: Kept, wanted: WantedRows) -> Response:
    """Stream the progress of writing those weights and tokens to a Parquet file; the last line holds the file."""
    return await _streamed(
        request,
        context,
        wanted,
        lambda asked, tell, _: written_heads.table(kept, asked, tell, wanted.layer, wanted.head),
    )


@router.post("/lens/write/why")
async def why(request: Request, context: CurrentContext, kept: Kept, wanted: WantedWhy) -> Response:
    """Stream the parts of one link's logit, or, without a head, the heads that give it most weight."""
    return await _streamed(
        request,
        context,
        wanted,
        lambda asked, tell, _: written_heads.why(
            kept, asked, tell, wanted.layer, wanted.head, wanted.place, wanted.key
        ),
    )


async def _streamed(
    request: Request,
    context: Context,
    wanted: Wanted,
    work: Callable[[WritingRequest, Tell, Send], dict[str, Any]],
) -> Response:
    """Do the work in the queue of the writing Lens and stream its parts, its progress and its result."""
    try:
        asked = wanted.request()
    except ClearheadError as error:
        return JSONResponse(error_fields(error), status_code=422)

    async def lines() -> AsyncIterator[str]:
        try:
            queue = context.queues["writing"]
            async with queue.slot(context.store.learner):
                parts: list[dict[str, Any]] = []
                job = Job(lambda tell: work(asked, tell, parts.append), queue.threads, parts)
                async for line in job.lines(request.is_disconnected):
                    yield line
        except Busy as busy:
            yield json.dumps({"error": str(busy)}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")
