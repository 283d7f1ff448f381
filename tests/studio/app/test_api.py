"""The studio answers any request: schemathesis generates requests from the declared parameters of the routes.

The routes do not declare that a path names an existing topic, or that a form carries a ticket. These are added here:
three of four values are valid, the others arbitrary.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case

from clearhead.studio.explore.experiments import routes as experiments
from clearhead.studio.explore.experiments.programs import EXPERIMENTS
from clearhead.studio.web.security import HEADER
from studio.conftest import Visitor
from studio.learn.test_pages import answer
from studio.sample import PROVED

SITTING = "0b9a6a0e-6d3c-4d0e-8a57-6a3c6d3f7b11"
# These compute for up to seconds where what they are sent makes sense: a model is run, a curve measured. They are sent
# fewer requests, and what would make them compute is small: two points of a curve, one short text, the demo models.
LONG = (
    "/experiments/", "/lens/read", "/lens/data", "/lens/answer", "/lens/picture", "/lens/write",
    "/attempts/{attempt_id}/head",
)  # fmt: skip
SHORT_RUN, LONG_RUN = 4, 400  # cases for each of the routes
FEW, FEW_LONG = 2, 40  # for those


def words(visitor: Visitor) -> dict[str, list[str]]:
    """Return valid values: name of a parameter or a field -> some values."""
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    attempt = visitor.context.progress.history[0].id
    asked = [visitor.get(f"/items/{id}") for id in PROVED]
    drafts = [visitor.ticket(page) for page in asked]
    return {
        "pack_id": ["attention"], "topic_id": ["one-head", "one-head", "later"],
        "item_id": list(PROVED), "item": list(PROVED),
        "id": [SITTING], "attempt_id": [attempt], "attempt": [attempt], "edit": [attempt], "ticket": drafts,
        "mode": ["recall", "practice", "review", "build", "test", "challenge"], "key": ["a", "b"], "after": list(PROVED),
        "clock": ["off", "1", "1.5", "2"], "theme": ["system", "light", "dark"], "language": ["en"],
        "name": ["heads", "scale", "length", "hard", "attention"], "q": ["softmax", "scale of", "\0"],
        "back": ["/topics/attention/one-head"], "response": ["a", "b", "good", "again"], "text": ["", "\0", "a note"],
        "program": ["print(1)"], "focus": ["scaling"], "hints": ["0", "1", "²"], "sure": ["guess", "sure"], "tick": ["x"],
        "confirmed": ["1"], "since": ["0", "1772625600"], "run": ["true"], "rollout": ["true"],
        "question": ['{"kind": "links", "layer": 0, "head": 0, "token": 0}', "[]"],
    }  # fmt: skip


# Of the routes that compute: always one of these. No other name of a model, which a hub would be asked for.
SMALL = {
    "model": ["", "induction", "no/such model"],
    "second": ["", "", "induction"],
    "text": ["", " ", "\0", "the cat sat", "é ⟦ab", "\ufffe"],
    "prompt": ["", " ", "\0", "the cat", "é ⟦ab", "\ufffe"],
    "typed": ["", " sat", "⟦"],
}


FIELDS = (
    "ticket", "response", "hints", "sure", "text", "program", "tick", "confirmed", "step-1", "place-a", "pair-a",
)  # fmt: skip


def operations(visitor: Visitor) -> Iterator[Any]:
    """Each route, with the fields of the forms that depend on the question."""
    api = visitor.client.app.openapi()  # type: ignore[attr-defined]
    form = {"type": "object", "properties": {name: {"type": "string"} for name in FIELDS}, "required": ["ticket"]}
    for path in ("/answer", "/help"):
        content = {"application/x-www-form-urlencoded": {"schema": form}}
        api["paths"][path]["post"]["requestBody"] = {"required": True, "content": content}
    schema = schemathesis.openapi.from_dict(api)
    schema.app = visitor.client.app
    for found in schema.get_all_operations():
        yield found.ok()


def fuzz(visitor: Visitor, operation: Any, known: dict[str, list[str]], cases: int) -> list[int]:
    """Send so many requests to a route; gives the status of each answer."""
    headers, cookies = {HEADER: visitor.token()}, dict(visitor.client.cookies)
    codes = []

    @settings(
        max_examples=cases, phases=[Phase.generate], derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(), data=st.data())
    def check(case: Case, data: st.DataObject) -> None:
        for values in (case.path_parameters, case.query, case.body):
            for name in list(values) if isinstance(values, dict) else ():
                if name in SMALL and case.path.startswith("/lens"):
                    values[name] = data.draw(st.sampled_from(SMALL[name]))
                elif name in known and data.draw(st.integers(0, 3)):
                    values[name] = data.draw(st.sampled_from(known[name]))
        response = case.call(base_url="http://127.0.0.1", headers=headers, cookies=cookies, timeout=300)
        assert response.status_code < 500, (case.method, case.path, case.path_parameters, case.query, case.body)
        codes.append(response.status_code)

    check()
    return codes


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two points of each curve, whose program finds its numbers at once; tests/studio/explore/test_experiments.py measures them."""
    for name, one in EXPERIMENTS.items():
        small = replace(
            one, points=(one.points[0], one.points[-1]), program=f"found = dict.fromkeys({[*one.columns]}, x)\n"
        )
        monkeypatch.setitem(EXPERIMENTS, name, small)  # type: ignore[arg-type]
    monkeypatch.setattr(experiments, "_kept", OrderedDict())


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_no_request_breaks_the_studio(visitor: Visitor) -> None:
    known = words(visitor)
    codes = {}
    for route in operations(visitor):
        codes[route.label] = fuzz(visitor, route, known, FEW if route.path.startswith(LONG) else SHORT_RUN)
    assert sum(map(len, codes.values())) > 100
    refused = [label for label, some in codes.items() if min(some) >= 400]
    # Four requests reach a page of a topic in six of seven runs: 18 to 25 of 74 routes are refused, by chance.
    assert len(refused) < len(codes) / 2, f"the requests do not reach what is behind these: {refused}"


@pytest.mark.stress
@pytest.mark.usefixtures("quick")
def test_ten_thousand_requests_do_not_break_the_studio(visitor: Visitor) -> None:
    known, routes = words(visitor), list(operations(visitor))
    sent = sum(
        len(fuzz(visitor, route, known, FEW_LONG if route.path.startswith(LONG) else LONG_RUN)) for route in routes
    )
    print(f"{sent} requests to {len(routes)} routes")
    assert sent >= 10_000
