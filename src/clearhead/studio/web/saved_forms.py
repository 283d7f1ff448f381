"""Saved forms: every POST redirects (303) to a page that a GET can show again, so sent forms are stored.

The fields of a question are stored until it is answered, if its form was incomplete, requested a hint or compares an
explanation. The playground stores its latest runs, and a refused form what was typed. All of this belongs to the
learner and is deleted at log-out. The reason for a refusal is in the address of its page, signed. The reason why a
log-in was refused is in a cookie, because it may contain what somebody typed.
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

LATEST: Final = 10  # forms and runs that are stored for a learner
KINDS: Final = {"form": LATEST, "run": LATEST, "refused": 3}  # fewer refused forms, which may be as long as a request
COOKIE: Final = "clearhead-refused"
LASTS: Final = 60  # most seconds between the redirect and the page it leads to


@dataclass(frozen=True)
class SavedForm:
    """A question's form as it was sent.

    Attributes:
        fields: field -> values, to fill the form in again.
        lacking: what the form lacked; "" if it was complete.
        compare: whether an explanation is compared with the criteria next.
    """

    fields: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lacking: str = ""
    compare: bool = False


def save_form(context: Context, draft: Draft, form: SavedForm) -> None:
    """Keep a question's form until the question is answered."""
    keep(context, "form", draft.id, {"fields": form.fields, "lacking": form.lacking, "compare": form.compare})


def saved_form(context: Context, draft: Draft) -> SavedForm:
    """Return the form as it was last sent with this draft, or an empty one."""
    kept = get(context, "form", draft.id)
    return SavedForm(kept["fields"], kept["lacking"], kept["compare"]) if kept else SavedForm()


def form_key(draft: Draft) -> str:
    """Return the store key of this question's form."""
    return f"form:{draft.id}"


def keep(context: Context, kind: str, id: str, values: Mapping[str, Any]) -> None:
    """Store these values under an id, and keep only the latest of their kind."""
    context.store.keep(f"{kind}:{id}", json.dumps({"at": context.now().timestamp(), **values}))
    ages = {id: json.loads(value)["at"] for id, value in context.store.kept_under(f"{kind}:").items()}
    for old in sorted(ages, key=lambda id: ages[id])[: -KINDS[kind]]:
        context.store.drop(f"{kind}:{old}")


def get(context: Context, kind: str, id: str) -> dict[str, Any] | None:
    """Return the values stored under this id, or None."""
    kept = context.store.kept(f"{kind}:{id}")
    return json.loads(kept) if kept else None


def forget_all(store: Store) -> None:
    """Delete every saved form of this learner."""
    for kind in KINDS:
        for id in store.kept_under(f"{kind}:"):
            store.drop(f"{kind}:{id}")


def is_form_post(request: Request) -> bool:
    """Return whether a browser sent a form and will show the response as a page; a script reads it as data."""
    return request.method == "POST" and "text/html" in request.headers.get("accept", "")


def to_refusal_page(context: Context, reason: Mapping[str, object], typed: Mapping[str, Any]) -> Response:
    """Redirect to the page that says why a form was refused and shows what was `typed`, if anything."""
    id = secrets.token_hex(6) if typed else ""
    if typed:
        keep(context, "refused", id, typed)
    return RedirectResponse(f"/refused?{urlencode({'said': sign(context, {**reason, 'kept': id})})}", 303)


def redirect_back(context: Context, address: str, **reason: object) -> Response:
    """Redirect to a form, which shows the reason for the refusal once: see `refusal_of`."""
    response = RedirectResponse(address, 303)
    response.set_cookie(COOKIE, sign(context, reason), max_age=LASTS, httponly=True, samesite="strict")
    return response


def refusal_of(context: Context, request: Request) -> dict[str, Any]:
    """Return the reason that `redirect_back` was given, or {}."""
    return read_signed(context, request.cookies.get(COOKIE, "")) or {}


def sign(context: Context, reason: Mapping[str, object]) -> str:
    """Return the reason for a refusal as signed text for an address."""
    return str(_signer(context).dumps(dict(reason)))


def read_signed(context: Context, text: str) -> dict[str, Any] | None:
    """Return the reason in a signed text; None if this studio did not sign it."""
    try:
        return dict(_signer(context).loads(text))
    except BadSignature:
        return None


def _signer(context: Context) -> URLSafeSerializer:
    return URLSafeSerializer(context.secret, salt="sent")
