"""Search: topics, pages and questions by their words, but not by text that would give an answer away."""

import re
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.studio.learn import topic
from clearhead.studio.text import excerpt, formatting
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
MOST = 20


@dataclass(frozen=True)
class Hit:
    """One result of a search."""

    address: str
    title: str
    kind: str
    text: str
    weight: float


@router.get("/search", response_class=HTMLResponse)
@linkable
def search(request: Request, context: CurrentContext, q: str = "") -> HTMLResponse:
    words = re.findall(r"\w+", fitting("search", q).lower())[:8]
    hits = sorted(_hits(context, words), key=lambda hit: (-hit.weight, hit.title)) if words else []
    return render(request, "learn/search.html", q=q, hits=hits[:MOST], more=max(0, len(hits) - MOST))


def _hits(context: Context, words: list[str]) -> list[Hit]:
    hits = []
    for pack, this in context.library.topics():
        hits.append(_hit(words, topic.address(pack, this), this.title, "topic", this.summary, 3))
        for mode in this.pages:
            text = context.library.page(pack, this, mode) or ""
            shown = next((name for name, page in topic.PAGES.items() if page == mode), mode)
            where, title = topic.address(pack, this, shown), f"{this.title}: {_(shown.capitalize())}"
            hits.append(_hit(words, where, title, "page", text, 2))
    for item in context.library.items.values():
        text = f"{context.library.proved[item.id].stem} ({', '.join(map(formatting.words, item.concepts)).lower()})"
        mode = "recall" if item.kind == "card" else "practice"
        hits.append(_hit(words, f"/items/{item.id}?mode={mode}", item.title or item.id, item.kind, text, 1))
    return [hit for hit in hits if hit]


def _hit(words: list[str], address: str, title: str, kind: str, text: str, weight: float) -> Hit | None:
    """Return a hit if every word is in the title or the text; words in the title weigh more."""
    low_title, shown = title.lower(), excerpt.plain_text(text)
    low = shown.lower()
    if not all(word in low_title or word in low for word in words):
        return None
    weight += 4 * sum(word in low_title for word in words)
    first = min((place for word in words if (place := low.find(word)) >= 0), default=0)
    return Hit(address, title, kind, excerpt.around(shown, first), weight)
