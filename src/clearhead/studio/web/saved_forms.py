"""Forms that were sent and not taken yet: every POST redirects (303) to a page that a GET can show again.

The fields of a question that was answered incompletely, asked for a hint or compares an explanation are kept here until
it is answered; the playground keeps its latest runs; a refused form keeps what was typed. All of it belongs to the
learner and is forgotten at log-out. Why a request was refused is in the address of its page, signed; why a log-in was
refused is in a cookie, since it may hold what somebody typed.
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
from clearhead.studio.questions.draft import Draft
from clearhead.studio.web.context import Context

LATEST: Final = 10  # forms and runs that are kept for a learner
KINDS: Final = {"form": LATEST, "run": LATEST, "refused": 3}  # what was refused may be as long as a request
COOKIE: Final = "clearhead-refused"
LASTS: Final = 60  # seconds between the redirect and the page it leads to, at most


@dataclass(frozen=True)
class SavedForm:
    """A question's form as it was sent.

    Attributes:
        fields: field -> values, to fill the form in again.
        lacking: what the form lacked; "" where nothing did.
        compare: whether an explanation is compared with the criteria next.
    """

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacking: str = ""
    compare: bool = False


def save_form(context: Context, draft: Draft, form: SavedForm) -> None:
    """Keep a question's form until the question is answered."""
    keep(context, "form", draft.id, {"fields": form.fields, "lacking": form.lacking, "compare": form.compare})


def saved_form(context: Context, draft: Draft) -> SavedForm:
    """Return the form as it was last sent with this draft; an empty one where it was not sent."""
    kept = get(context, "form", draft.id)
    return SavedForm(kept["fields"], kept["lacking"], kept["compare"]) if kept else SavedForm()


def form_key(draft: Draft) -> str:
    """Where the store keeps the form of this question, until it is answered."""
    return f"form:{draft.id}"


def keep(context: Context, kind: str, id: str, values: Mapping[str, Any]) -> None:
    """Keep these values under an id, and only the latest of their kind."""
    context.store.keep(f"{kind}:{id}", json.dumps({"at": context.now().timestamp(), **values}))
    ages = {id: json.loads(value)["at"] for id, value in context.store.kept_under(f"{kind}:").items()}
    for old in sorted(ages, key=lambda id: ages[id])[: -KINDS[kind]]:
        context.store.drop(f"{kind}:{old}")


def get(context: Context, kind: str, id: str) -> dict[str, Any] | None:
    """Return what was kept under this id, or None."""
    kept = context.store.kept(f"{kind}:{id}")
    return json.loads(kept) if kept else None


def forget_all(store: Store) -> None:
    """Forget everything that this learner sent and did not answer."""
    for kind in KINDS:
        for id in store.kept_under(f"{kind}:"):
            store.drop(f"{kind}:{id}")


def is_form_post(request: Request) -> bool:
    """Return whether a browser sent a form and shows the response as a page; a script reads the response as data."""
    return request.method == "POST" and "text/html" in request.headers.get("accept", "")


def to_refusal_page(context: Context, reason: Mapping[str, object], typed: Mapping[str, Any]) -> Response:
    """Redirect to the page that says why a form was refused and, where something was `typed`, shows it."""
    id = secrets.token_hex(6) if typed else ""
    if typed:
        keep(context, "refused", id, typed)
    return RedirectResponse(f"/refused?{urlencode({'said': sign(context, {**reason, 'kept': id})})}", 303)


def redirect_back(context: Context, address: str, **reason: object) -> Response:
    """Redirect to a form, which says once why it was not taken: see `refusal_of`."""
    response = RedirectResponse(address, 303)
    response.set_cookie(COOKIE, sign(context, reason), max_age=LASTS, httponly=True, samesite="strict")
    return response


def refusal_of(context: Context, request: Request) -> dict[str, Any]:
    """Return what `redirect_back` was given; {} where it was not called."""
    return read_signed(context, request.cookies.get(COOKIE, "")) or {}


def sign(context: Context, reason: Mapping[str, object]) -> str:
    """Return why a request was refused as signed text for an address."""
    return str(_signer(context).dumps(dict(reason)))


def read_signed(context: Context, text: str) -> dict[str, Any] | None:
    """Return what `sign` was given; None where this studio did not sign the text."""
    try:
        return dict(_signer(context).loads(text))
    except BadSignature:
        return None


def _signer(context: Context) -> URLSafeSerializer:
    return URLSafeSerializer(context.secret, salt="sent")
