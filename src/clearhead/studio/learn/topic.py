"""Routes of a topic: the overview of its modes, and the pages to read."""

from typing import Any

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from clearhead.course import Item, Pack, Topic
from clearhead.course.pack.minutes import page_minutes
from clearhead.studio.learn import home, path
from clearhead.studio.learner import review_queue
from clearhead.studio.questions import assessment
from clearhead.studio.questions.assessment import TEST
from clearhead.studio.questions.question import ASKED
from clearhead.studio.text.translation import _, many, mark
from clearhead.studio.web import saved_forms
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()


def address(pack: Pack, topic: Topic, mode: str = "") -> str:
    """Return the address of a topic, or of one of its modes."""
    return f"/topics/{pack.id}/{topic.id}" + (f"/{mode}" if mode else "")


def topic_at(context: Context, pack_id: str, topic_id: str) -> tuple[Pack, Topic]:
    """Return the topic at this address, or raise a 404."""
    pair = context.library.find(pack_id, topic_id)
    if pair is None:
        raise HTTPException(404, _("There is no topic %(topic)s here.", topic=f"{pack_id}/{topic_id}"))
    return pair


class NotYet(HTTPException):
    """The answers of this page are still being computed."""

    def __init__(self) -> None:
        super().__init__(404, _("The answers are still being computed. This page loads again by itself."))


def nothing(context: Context, why: str) -> HTTPException:
    """Return the error for an empty page: its answers are still being computed, or there are none."""
    return NotYet() if context.library.coming else HTTPException(404, why)


GROUPS = {
    mark("Understand"): ("read", "why", "walk", "try", "experiment"),
    mark("Remember"): ("sheet", "recall", "practice"),
    mark("Show it"): ("challenge", "build", "test"),
}
ORDER = tuple(mode for modes in GROUPS.values() for mode in modes)  # of the tabs, as of the menu
RECALLED = ("card", "explain")
FEWEST = 5  # a test or a challenge needs at least so many items
PAGES = {"read": "read", "why": "why", "walk": "walk", "sheet": "recall"}  # a mode that is a page -> the pack's page


def items_for(mode: str, items: list[Item]) -> list[Item]:
    """Return the items of a topic that a mode asks."""
    if mode == "recall":
        return [item for item in items if item.kind in RECALLED]
    if mode == "build":
        return sorted((item for item in items if item.kind == "code"), key=lambda item: item.difficulty)
    if mode == "try":
        return sorted((item for item in items if item.kind == "predict"), key=lambda item: item.difficulty)
    if mode == "test":
        return [item for item in items if item.kind in TEST] if len(items) >= FEWEST else []
    return [item for item in items if item.kind in ASKED and item.kind not in RECALLED]


def tabs(context: Context, pack: Pack, topic: Topic) -> list[tuple[str, str]]:
    """Return (mode, address) for each mode that has content in this topic."""
    items = context.library.items_of(pack, topic)
    has = {mode: page in topic.pages for mode, page in PAGES.items()}
    has |= {mode: bool(items_for(mode, items)) for mode in ("try", "recall", "practice", "build", "test")}
    has["challenge"] = has["test"]
    has["experiment"] = bool(path.experiments_of(pack, topic))
    has["walk"] = path.has_walk(pack, topic)
    has = {mode: has[mode] for mode in ORDER}
    return [(mode, address(pack, topic, mode)) for mode, there in has.items() if there]


def mode_page(
    request: Request, context: Context, template: str, pack: Pack, this: Topic, mode: str, **fields: Any
) -> HTMLResponse:
    """Return a page of one of a topic's modes, with the tabs of all."""
    return render(request, template, pack=pack, topic=this, tabs=tabs(context, pack, this), mode=mode, **fields)


@router.get("/topics/{pack_id}/{topic_id}", response_class=HTMLResponse)
@linkable
def topic(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, topic = topic_at(context, pack_id, topic_id)
    items, progress = context.library.items_of(pack, topic), context.progress
    descriptions = _descriptions(context, pack, topic, items)
    concepts = [progress.concepts[name] for name in dict.fromkeys(c for item in items for c in item.concepts)]
    return render(
        request,
        "learn/topic.html",
        pack=pack,
        topic=topic,
        groups=_grouped([(mode, address, *descriptions[mode]) for mode, address in tabs(context, pack, topic)]),
        passed=path.passed_on(context, pack, topic),
        concepts=concepts,
        way=path.way(context, pack, topic),
        skip=not topic.needs and path.can_be_skipped(context, pack, topic),
        needs=[pack.topic(id) for id in topic.needs],
    )


def _descriptions(context: Context, pack: Pack, topic: Topic, items: list[Item]) -> dict[str, tuple[str, str]]:
    """Return a description of each mode, and how far the learner is in it."""
    progress, now = context.progress, context.now()

    def far(asked: list[Item]) -> str:
        known, waiting = (
            sum(review_queue.last_was_right(progress.items[item.id]) for item in asked),
            len(review_queue.due(asked, progress, now)),
        )
        right = _("%(known)s of %(all)s right", known=known, all=len(asked))
        return f"{right}, {_('%(count)s due', count=waiting)}" if waiting else right

    bank = items_for("test", items)
    badge = f"badge:{pack.id}/{topic.id}"
    badges = [day for day in (context.store.kept(badge), *context.store.kept_under(f"{badge}/").values()) if day]
    passed = path.passed_on(context, pack, topic)
    return {
        "read": (_("The idea, a formula, a program and its output."), _("about %(count)s min", count=_minutes(topic))),
        "sheet": (_("All of it on one page, for a quick look."), ""),
        "why": (_("The problem it solves, measured."), ""),
        "walk": (
            _("A tour, stop by stop.") if "walk" in topic.pages else _("Every step, with matrices you can edit."),
            "",
        ),
        "try": (_("Say what a program prints, run it, change it."), ""),
        "experiment": (_("Turn a slider, measure it on this machine."), ""),
        "recall": (_("Cards: say it to yourself, then look."), far(items_for("recall", items))),
        "practice": (_("Questions with the reason for every wrong option."), far(items_for("practice", items))),
        "challenge": (
            many("%(count)s problem, a clock, few tries.", "%(count)s problems, a clock, few tries.", five)
            if (five := len(assessment.problems(bank, assessment.new_id(), lambda _id: None))) != len(assessment.SLOTS)
            else _("Five problems, a clock, few tries."),
            _("all right, %(day)s", day=max(badges)) if badges else "",
        ),
        "test": (
            many("%(count)s question, a verdict per concept.", "%(count)s questions, a verdict per concept.", len(bank))
            if len(bank) < assessment.LENGTH
            else _("Ten questions that adapt, a verdict per concept."),
            _("passed") if passed else "",
        ),
        "build": (_("Write it yourself; tests and known mistakes answer."), far(items_for("build", items))),
    }


def _grouped(modes: list[tuple[str, str, str, str]]) -> list[tuple[str, list[tuple[str, str, str, str]]]]:
    """Return the modes grouped by purpose."""
    groups = [(name, [entry for entry in modes if entry[0] in inside]) for name, inside in GROUPS.items()]
    return [(name, entries) for name, entries in groups if entries]


def _minutes(topic: Topic) -> int:
    """Return how many minutes the page takes to read and try, as counted in the topic's minutes."""
    return max(1, round(page_minutes(topic.pages["read"]))) if "read" in topic.pages else 1


@router.get("/topics/{pack_id}/{topic_id}/read", response_class=HTMLResponse)
@linkable
def read(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    return page(request, context, pack_id, topic_id, "read")


@router.get("/topics/{pack_id}/{topic_id}/why", response_class=HTMLResponse)
@linkable
def why(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    return page(request, context, pack_id, topic_id, "why")


@router.get("/topics/{pack_id}/{topic_id}/sheet", response_class=HTMLResponse)
@linkable
def sheet(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    return page(request, context, pack_id, topic_id, "sheet")


def _from_memory(modes: list[tuple[str, str]]) -> str:
    """Return the address of the mode that asks about a page's content; "" if nothing can be asked yet."""
    there = dict(modes)
    return there.get("recall") or there.get("practice") or ""


def _ran(request: Request, context: Context, mode: str) -> dict[str, Any] | None:
    """Return the program of this page that was run without JavaScript, and its outcome, or None."""
    kept = saved_forms.get(context, "run", request.query_params.get("run", ""))
    return {**kept, "html": Markup(kept["html"])} if kept and kept.get("mode") == mode else None  # noqa: S704 — ours


def page(request: Request, context: Context, pack_id: str, topic_id: str, mode: str) -> HTMLResponse:
    """Show a mode that is a page of the pack, or raise a 404."""
    pack, topic = topic_at(context, pack_id, topic_id)
    text = context.library.page(pack, topic, PAGES[mode])
    if text is None:
        raise HTTPException(
            404, _("%(topic)s has no page for %(mode)s yet.", topic=topic.title, mode=_(mode.capitalize()))
        )
    home.remember(context, home.Place(request.scope["path"], topic.title, mode.capitalize()))
    path.opened(context, request.scope["path"])
    modes = tabs(context, pack, topic)
    return render(
        request,
        "learn/read.html",
        pack=pack,
        topic=topic,
        text=text,
        waits=context.library.awaits_outputs(pack, topic, PAGES[mode]),
        tabs=modes,
        mode=mode,
        after=_from_memory(modes),
        way=path.way(context, pack, topic),
        embeds="```lens" in text,
        frames="```frames" in text,
        live="```live" in text or "```frames" in text,
        guess="```guess" in text,
        ran=_ran(request, context, mode),
    )
