"""Routes of Experiment: settings on sliders, a confined program run for each point, charts of what it measured."""

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from clearhead import sandbox
from clearhead.errors import SandboxError
from clearhead.studio.explore.experiments.experiment import Experiment
from clearhead.studio.explore.experiments.findings import FINDINGS
from clearhead.studio.explore.experiments.line_chart import line_chart, short_number
from clearhead.studio.explore.experiments.programs import EXPERIMENTS, SEEDS, program
from clearhead.studio.explore.experiments.samples import SampleRange, Samples
from clearhead.studio.learn import home, path, topic
from clearhead.studio.text import formatting
from clearhead.studio.text.field_limits import index_in
from clearhead.studio.text.translation import _, mark
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.rendering import fragment
from clearhead.studio.web.work_queues import Busy, needs_queue, queued

router = APIRouter()
LIMITS = sandbox.Limits(seconds=30)


@dataclass(frozen=True)
class Row:
    """One measured point."""

    x: float
    samples: Mapping[str, Samples]

    def text(self, key: str) -> str:
        """Return the text in the table."""
        return SampleRange.of(self.samples[key]).text


_kept: OrderedDict[str, list[Row]] = OrderedDict()


@router.get("/topics/{pack_id}/{topic_id}/experiment", response_class=HTMLResponse)
@queued("experiments")
def page(
    request: Request, context: CurrentContext, pack_id: str, topic_id: str, name: str = "", run: bool = False
) -> Response:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    own = path.experiments_of(pack, this)
    if not own:  # an address that no page links to
        return RedirectResponse(topic.address(pack, this), status_code=303)
    experiment, chosen = _asked(request, name or own[0])
    home.remember(context, home.Place(request.scope["path"], this.title, mark("Experiment")))
    result, problem = "", ""
    if run:
        try:
            result = _result(experiment, chosen, list(measure(experiment, chosen)), _guess(request, experiment))
        except SandboxError as refused:
            problem = str(refused)
    return topic.mode_page(
        request,
        context,
        "explore/experiment.html",
        pack,
        this,
        "experiment",
        way=path.way(context, pack, this),
        experiments=[EXPERIMENTS[id] for id in own],
        experiment=experiment,
        chosen=chosen,
        guess=FINDINGS[experiment.id].guess,
        guessed=_guess(request, experiment),
        result=result,
        problem=problem,
    )


@router.get("/experiments/{name}")
async def stream(request: Request, context: CurrentContext, name: str) -> StreamingResponse:
    """Stream one line of JSON for each point as it is measured, with the charts so far; the last has the findings."""
    experiment, chosen = _asked(request, name)
    guessed = _guess(request, experiment)

    async def lines() -> AsyncIterator[str]:
        rows: list[Row] = []
        measured, queue = measure(experiment, chosen), context.queues["experiments"]
        try:
            while row := await queue.run(context.store.learner, lambda: next(measured, None)):
                rows.append(row)
                html = _result(experiment, chosen, rows, guessed)
                yield json.dumps({"done": len(rows), "of": len(experiment.points), "html": html}) + "\n"
        except (SandboxError, Busy) as problem:
            yield json.dumps({"error": str(problem)}) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson", headers={"cache-control": "no-store"})


def measure(experiment: Experiment, chosen: dict[str, int]) -> Iterator[Row]:
    """Run the program for each point; points measured with the same settings before are not run again.

    Raises:
        SandboxError: nothing can be run here, or the program failed.
    """
    key = f"{experiment.id} {chosen}"
    if key in _kept:
        yield from _kept[key]
        return
    rows = []
    for x in experiment.points:
        needs_queue()
        outcome = sandbox.run(
            program(experiment, {"x": x, **chosen}), limits=LIMITS, preload=("torch",), owner="experiments"
        )
        if not outcome.ok:
            raise SandboxError(
                _(
                    "The experiment ended early at %(axis)s = %(value)s: %(why)s. Try smaller settings.",
                    axis=_(experiment.x),
                    value=short_number(x),
                    why=formatting.why_ended(outcome, LIMITS),
                )
            )
        seeds = json.loads(outcome.stdout)
        rows.append(Row(x, {key: [measured[key] for measured in seeds] for key in seeds[0]}))
        yield rows[-1]
    _kept[key] = rows
    while len(_kept) > 64:
        _kept.popitem(last=False)


def _asked(request: Request, name: str) -> tuple[Experiment, dict[str, int]]:
    """Return the experiment and its settings from the address; a form sends a slider's position, not its value."""
    experiment = EXPERIMENTS.get(name)
    if experiment is None:
        raise HTTPException(
            404, _("There is no experiment %(name)s; there are %(known)s.", name=name, known=", ".join(EXPERIMENTS))
        )
    chosen = {}
    for setting in experiment.settings:
        place = index_in(len(setting.values), request.query_params.get(setting.name, ""))
        chosen[setting.name] = setting.values[setting.start if place is None else place]
    return experiment, chosen


def _guess(request: Request, experiment: Experiment) -> int | None:
    """Return which answer was guessed, from 0; None where none was."""
    return index_in(len(FINDINGS[experiment.id].guess.answers), request.query_params.get("guess", ""))


def _result(experiment: Experiment, chosen: dict[str, int], rows: list[Row], guessed: int | None) -> str:
    """Return the charts so far; once every point is measured, the findings and whether the guess was right."""

    def column(key: str) -> list[Samples]:
        return [[row.x] if key == "x" else row.samples[key] for row in rows]

    def middles(key: str) -> list[float]:
        return [SampleRange.of(samples).middle for samples in column(key)]

    xs = [row.x for row in rows]
    curves = [
        (
            _(label),
            line_chart(xs, {key: middles(key) for key in series}, _(label), span=experiment.points),
            [_(name) if name else "" for name in series.values()],
        )
        for label, series in experiment.charts.items()
    ]
    finding, whole = FINDINGS[experiment.id], len(rows) == len(experiment.points)
    return fragment(
        "explore/curves.html",
        experiment=experiment,
        chosen=chosen,
        rows=rows,
        curves=curves,
        short_number=short_number,
        seeds=len(SEEDS),
        said=finding.sentences(column) if whole else [],
        answers=finding.guess.answers,
        guessed=guessed if whole else None,
        right=finding.guess.right(column) if whole else 0,
    )
