"""What a form carried and what came of it, kept so that every POST can redirect (303) to a page that a GET shows again.

A question that was answered incompletely, asked for a hint or compares an explanation keeps its fields here until it is
answered; Try keeps its latest runs; a form that was refused keeps what was typed. All of it is the learner's own and is
forgotten at log-out. Why a request was refused travels in the address, signed; what was wrong with a log-in in a
cookie, as it may hold what somebody typed.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeSerializer

from clearhead.studio.learner.store import Store
from clearhead.studio.questions.draft import Ticket
from clearhead.studio.web.context import Desk

LATEST: Final = 10  # forms and runs that are kept for a learner
KINDS: Final = {"form": LATEST, "run": LATEST, "refused": 3}  # what was refused may be as long as a request
COOKIE: Final = "clearhead-refused"
LASTS: Final = 60  # seconds between the redirect and the page it leads to, at most


@dataclass(frozen=True)
class Sent:
    """A question's form as it was sent.

    Attributes:
        fields: field -> values, to fill the form in again.
        lacking: what the form lacked; "" where nothing did.
        compare: an explanation that is compared with the criteria next.
    """

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacking: str = ""
    compare: bool = False


def keep_form(desk: Desk, ticket: Ticket, sent: Sent) -> None:
    """Keep a question's form until the question is answered."""
    keep(desk, "form", ticket.id, {"fields": sent.fields, "lacking": sent.lacking, "compare": sent.compare})


def form_of(desk: Desk, ticket: Ticket) -> Sent:
    """The form as it was last sent with this ticket; an empty one where it was not."""
    kept = get(desk, "form", ticket.id)
    return Sent(kept["fields"], kept["lacking"], kept["compare"]) if kept else Sent()


def form_key(ticket: Ticket) -> str:
    """Where the store keeps the form of this question, until it is answered."""
    return f"form:{ticket.id}"


def keep(desk: Desk, kind: str, id: str, what: Mapping[str, Any]) -> None:
    """Keep this under an id, and only the latest of its kind."""
    desk.store.keep(f"{kind}:{id}", json.dumps({"at": desk.now().timestamp(), **what}))
    ages = {id: json.loads(value)["at"] for id, value in desk.store.kept_under(f"{kind}:").items()}
    for old in sorted(ages, key=lambda id: ages[id])[: -KINDS[kind]]:
        desk.store.drop(f"{kind}:{old}")


def from_browser(request: Request) -> bool:
    """Whether a browser sent a form and shows what comes back as a page; a script reads it as it is."""
    return request.method == "POST" and "text/html" in request.headers.get("accept", "")


def refused(desk: Desk, said: Mapping[str, object], what: Mapping[str, Any]) -> Response:
    """Redirect to the page that says why a form was refused and, where `what` was typed is not empty, shows that."""
    id = secrets.token_hex(6) if what else ""
    if what:
        keep(desk, "refused", id, what)
    return RedirectResponse(f"/refused?{urlencode({'said': signed(desk, {**said, 'kept': id})})}", 303)


def get(desk: Desk, kind: str, id: str) -> dict[str, Any] | None:
    """What was kept under this id, or None."""
    kept = desk.store.kept(f"{kind}:{id}")
    return json.loads(kept) if kept else None


def forget(store: Store) -> None:
    """Forget all that this learner sent and did not answer."""
    for kind in KINDS:
        for id in store.kept_under(f"{kind}:"):
            store.drop(f"{kind}:{id}")


def signed(desk: Desk, said: Mapping[str, object]) -> str:
    """Why a request was refused, as text for an address."""
    return str(_signer(desk).dumps(dict(said)))


def read(desk: Desk, text: str) -> dict[str, Any] | None:
    """The same, or None where this studio did not sign it."""
    try:
        return dict(_signer(desk).loads(text))
    except BadSignature:
        return None


def back_to(desk: Desk, where: str, **said: object) -> Response:
    """Redirect to a form, which says once why it was not taken (`why_not`)."""
    response = RedirectResponse(where, 303)
    response.set_cookie(COOKIE, signed(desk, said), max_age=LASTS, httponly=True, samesite="strict")
    return response


def why_not(desk: Desk, request: Request) -> dict[str, Any]:
    """What `back_to` said, or nothing."""
    return read(desk, request.cookies.get(COOKIE, "")) or {}


def _signer(desk: Desk) -> URLSafeSerializer:
    return URLSafeSerializer(desk.secret, salt="sent")
