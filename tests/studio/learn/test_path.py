"""Next: one button that leads along a topic's path, in parts of about a quarter of an hour."""

import re
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from clearhead import course
from clearhead.studio.learn import path
from clearhead.studio.learn import topic as topic_pages
from clearhead.studio.web.context import Context
from studio import sample
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC, answer


def pressed(visitor: Visitor, address: str) -> str:
    """Where Next leads, without following."""
    return str(visitor.client.get(address, follow_redirects=False).headers["location"])


@pytest.fixture(scope="module")
def pack() -> course.Pack:
    return sample.shipped_course()


def test_every_part_of_the_shipped_course_takes_about_a_quarter_of_an_hour(pack: course.Pack) -> None:
    for topic in pack.topics:
        steps = path.steps_of(pack, topic)
        assert {step.item.id for step in steps if step.item} == {item.id for item in pack.items_of(topic.id)}
        for part in range(steps[-1].part + 1):
            minutes = sum(step.minutes for step in steps if step.part == part)
            assert 7 <= minutes <= 23, (topic.id, part, minutes)


def test_a_part_reads_then_touches_a_figure_then_predicts_then_recalls_then_builds(pack: course.Pack) -> None:
    for topic in pack.topics:
        steps = path.steps_of(pack, topic)
        assert steps[0].kind == "read"
        for part in range(steps[-1].part + 1):
            places = [path.ORDER.index(step.kind) for step in steps if step.part == part]
            assert places == sorted(places)


def test_in_nearly_every_part_one_predicts_recalls_and_builds(pack: course.Pack) -> None:
    for topic in pack.topics:
        parts: dict[int, set[str]] = {}
        for step in path.steps_of(pack, topic):
            parts.setdefault(step.part, set()).add(step.kind)
        assert all("predict" in kinds for kinds in parts.values())
        builders = sum(item.kind in ("code", "debug") for item in pack.items_of(topic.id))
        assert sum(bool(kinds & {"code", "debug"}) for kinds in parts.values()) == min(len(parts), builders), topic.id


def test_next_leads_from_the_page_over_each_question_to_the_end(visitor: Visitor) -> None:
    assert pressed(visitor, "/next") == f"{TOPIC}/next"
    assert pressed(visitor, f"{TOPIC}/next") == f"{TOPIC}/read"
    page = visitor.get(f"{TOPIC}/read")
    assert f'href="{TOPIC}/next?after=read" data-key="n Enter"' in page
    assert re.search(r"You are in part 1 of \d", page)
    assert "minutes to go" in page
    seen = []
    for _ in range(30):
        where = pressed(visitor, f"{TOPIC}/next?after={seen[-1] if seen else 'read'}")
        if "/items/" not in where:
            visitor.get(where)
            continue
        seen.append(where.removeprefix("/items/").removesuffix("?mode=path"))
        page = visitor.get(where)
        assert "min to go" in page
        if seen[-1].startswith("what-is"):
            visitor.post("/answer", ticket=visitor.ticket(page), response="good")
            continue
        if seen[-1] == "scale-of-logits":
            page = answer(visitor, page, "16.0")
            assert f'href="{TOPIC}/next?after=scale-of-logits" data-key="n Enter Space"' in page
            break
    assert seen[0] == "scale-of-logits", "a prediction comes before cards"
    assert pressed(visitor, f"{TOPIC}/next?after=scale-of-logits") != f"/items/{seen[0]}?mode=path", "wrong, but done"


def test_a_passed_topic_has_nothing_left_and_says_what_comes_next(visitor: Visitor) -> None:
    visitor.context.store.keep("passed:attention/one-head", "2026-03-04")
    page = visitor.get(f"{TOPIC}/next")
    assert "One head, step by step: done" in page
    assert pressed(visitor, "/next") == "/certificate"


def test_the_end_of_a_part_is_a_place_to_stop(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path, "PART", 1)
    steps = path.steps_of(*visitor.context.library.find("attention", "one-head"))  # type: ignore[misc]
    assert steps[-1].part > 1
    for step in steps:
        if step.part == 0 and step.item is None:
            visitor.get(step.address)
        elif step.part == 0 and step.item:
            page = visitor.get(step.address)
            if step.kind == "card":
                visitor.post("/answer", ticket=visitor.ticket(page), response="good")
            else:
                answer(visitor, page, "4.0")
    last = [step for step in steps if step.part == 0][-1]
    page = visitor.get(f"{TOPIC}/next?after={last.key}")
    assert "Part 1 of" in page
    assert "A good place to stop" in page
    assert f'href="{TOPIC}/next" data-key="n Enter"' in page


def test_a_topic_waits_for_those_it_needs(pack: course.Pack) -> None:
    def way(topic: course.Topic, left: bool) -> path.Way:
        step = path.Step(0, "read", "/x", 1.0)
        return path.Way(pack, topic, 1, 1, 1, 1, 1 if left else 0, step if left else None)

    ways = [way(topic, left=True) for topic in pack.topics]
    first = path.following(ways)
    assert first
    assert not first.topic.needs
    assert not path.ready(ways[-1], ways)
    assert path.ready(ways[-1], [way(topic, left=False) for topic in pack.topics])
    here = f"/topics/{pack.id}/{pack.topics[-1].id}/read"
    assert path.following(ways, here) is ways[-1], "one who is in a topic goes on there"


def test_the_parts_of_a_topic_are_counted_before_its_answers_are_computed(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "PART", 1)
    pack, topic = visitor.context.library.find("attention", "one-head")  # type: ignore[misc]
    parts = path.way(visitor.context, pack, topic).parts
    assert parts > 1
    unproved = replace(visitor.context.library, proved={})
    early = SimpleNamespace(library=unproved, store=visitor.context.store, progress=visitor.context.progress)
    assert path.way(cast("Context", early), pack, topic).parts == parts


def test_a_topic_whose_answers_are_still_to_come_is_not_called_done(visitor: Visitor) -> None:
    library = visitor.context.library
    pack, topic = library.find("attention", "one-head")  # type: ignore[misc]
    visitor.get(f"{TOPIC}/read")
    visitor.get(f"{TOPIC}/walk")
    assert not path.way(visitor.context, pack, topic).waits
    visitor.context.set_library(replace(library, proved={}, coming=len(library.proved)))
    assert path.way(visitor.context, pack, topic).waits
    page = visitor.get(f"{TOPIC}/read")
    assert "still being computed" in page
    assert "at every step" not in page


@pytest.mark.parametrize(
    "address",
    [
        "/map", "/progress", "/settings", "/search", "/search?q=scale", "/project", "/certificate", "/lens", "/lens/write",
        TOPIC, *(f"{TOPIC}/{mode}" for mode in ("read", "walk", "try", "challenge", "test", "mistakes")),
    ],
)  # fmt: skip
def test_every_page_beside_a_question_leads_on_with_the_same_key(visitor: Visitor, address: str) -> None:
    visitor.get(f"{TOPIC}/read")
    assert re.search(r'<a [^>]*data-key="n(?: Enter)?"[^>]*>Next', visitor.get(address)), address


def test_the_minutes_of_a_page_count_its_figures() -> None:
    page = course.Page("read", "word " * 190 + "\n\n```lens\nThe animal\n```\n" * 3, "r.md")
    assert topic_pages._minutes(replace(sample.TOPIC, pages={"read": page})) == 2  # a minute to read, and three figures
