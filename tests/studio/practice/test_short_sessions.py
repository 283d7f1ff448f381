"""The short sessions from Home, the placement test, and the map of topics."""

import re
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from clearhead import course
from clearhead.course import Ledger, Page
from clearhead.course.pack.minutes import item_minutes
from clearhead.studio.learn import topic_map
from clearhead.studio.learner.history import Learner
from clearhead.studio.library.library import Library
from clearhead.studio.questions import telling
from studio import sample
from studio.conftest import Visitor, visitor_of
from studio.learn.test_pages import TOPIC, answer


def begun(visitor: Visitor, kind: str) -> str:
    return visitor.post(f"/sessions/{kind}")


def asked(page: str) -> str:
    found = re.search(r'data-draft="answer:([^"]+)"', page)
    return found[1] if found else ""


def test_home_offers_five_minutes_and_an_interview(visitor: Visitor) -> None:
    visitor.get(f"{TOPIC}/read")
    page = visitor.get("/")
    assert 'action="/sessions/five"' in page
    assert 'href="/interview"' in page
    assert 'data-key="n"' in page


def test_five_minutes_asks_what_fits_and_reports(visitor: Visitor) -> None:
    page = begun(visitor, "five")
    count = re.search(r"1 of (\d)", page)
    assert count
    for _ in range(int(count[1])):
        page = visitor.get("/sessions/five")
        if "Show the answer" in page:
            visitor.post("/answer", ticket=visitor.ticket(page), response="good")
        elif asked(page) == "which-hold":
            answer(visitor, page, "4.0", "16.0")
        else:
            assert "/sessions/five" in answer(visitor, page, "4.0"), "Next stays in the session"
    page = visitor.get("/sessions/five")
    assert f"of {count[1]} right" in page
    assert "?back=/sessions/five" in page


def test_five_minutes_takes_no_longer(visitor: Visitor) -> None:
    visitor.get("/")
    begun(visitor, "five")
    kept = visitor.context.store.kept("sitting:five")
    items = {item.id: item for item in sample.ITEMS}
    used = [items[id] for id in re.findall(r'"([a-z-]+)"', kept) if id in items]
    assert 0 < sum(map(item_minutes, used)) <= 5


def test_an_interview_is_the_sheets_then_questions(visitor: Visitor) -> None:
    page = visitor.get("/interview")
    assert "most telling questions" in page
    page = begun(visitor, "interview")
    assert "1 of 3" in page, "cards are not asked: they grade themselves"
    first = asked(page)
    answer(visitor, page, "4.0", *(["16.0"] if first == "which-hold" else []))
    assert asked(visitor.get("/sessions/interview")) != first
    assert "Continue with the questions" in visitor.get("/interview")
    visitor.post("/sessions/interview", again="false")
    assert "2 of 3" in visitor.get("/sessions/interview")


def test_there_is_no_session_of_another_name(visitor: Visitor) -> None:
    visitor.get("/sessions/nap", 404)
    visitor.post("/sessions/nap", 404)


@pytest.fixture(scope="module")
def pack() -> course.Pack:
    return sample.shipped_course()


def test_the_most_telling_cover_more_of_the_shipped_course_than_the_first_twelve(pack: course.Pack) -> None:
    items = [item for item in pack.items.values() if item.kind in telling.TEST]
    progress = Ledger(pack.items.values()).add([])
    proofs = {item.id: sample.proof(item.id, item.kind) for item in items}
    chosen = telling.most_telling(items, proofs, progress)
    assert len(chosen) == len({item.id for item in chosen}) == 12

    def covered(some: list[course.Item]) -> int:
        return len({concept for item in some for concept in item.concepts})

    assert covered(chosen) > 1.5 * covered(items[:12])
    assert len({item.topic for item in chosen}) >= 5


def test_an_interview_asks_the_subjects_of_the_pack_in_its_order(pack: course.Pack) -> None:
    progress = Ledger(pack.items.values()).add([])
    named = [name for row in pack.interview for name in row]
    proofs = {name: sample.proof(name, pack.items[name].kind) for name in named}
    chosen = telling.of_an_interview([pack], proofs, progress)
    assert [[item.id in row for row in pack.interview].index(True) for item in chosen] == list(range(12))

    rights = [
        course.Attempt(str(uuid.uuid4()), chosen[0].id, 1, datetime(2026, 3, day, tzinfo=UTC), "practice", True)
        for day in range(1, 9)
    ]
    known = Ledger(pack.items.values()).add(rights)
    assert telling.of_an_interview([pack], proofs, known)[0] != chosen[0], "an answer that is sure tells little"


def test_an_interview_without_subjects_asks_the_most_telling_of_all(pack: course.Pack) -> None:
    progress = Ledger(pack.items.values()).add([])
    proofs = {item.id: sample.proof(item.id, item.kind) for item in pack.items.values() if item.kind in telling.TEST}
    bare = replace(pack, interview=())
    items = [pack.items[name] for name in proofs]
    assert telling.of_an_interview([bare], proofs, progress) == telling.most_telling(items, proofs, progress)


def test_more_misconceptions_and_an_open_outcome_tell_more(pack: course.Pack) -> None:
    easy, hard = sample.ITEMS[2], replace(sample.ITEMS[2], id="hard", difficulty=3)
    progress = Ledger([easy, hard]).add([])
    options, bare = sample.proof("a", "predict", sample.options()), sample.proof("a", "predict")
    assert telling.discrimination(hard, options, progress) > telling.discrimination(hard, bare, progress)
    assert telling.discrimination(hard, bare, progress) > telling.discrimination(easy, bare, progress)


# The placement test: a topic that another needs.
ITEMS = (*sample.ITEMS[2:], *(replace(sample.ITEMS[2], id=f"more-{n}", difficulty=n) for n in (1, 2, 3, 4)))


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Visitor]:
    """A visitor of a course whose second topic needs the first."""
    client, visitor = visitor_of(tmp_path / "data")
    old = visitor.context.library
    second = replace(sample.EMPTY, needs=("one-head",), pages={"read": Page("read", "Later.", "l.md")})
    own = replace(old.packs[0], topics=(sample.TOPIC, second), items={item.id: item for item in ITEMS})
    more = {item.id: replace(old.proved["scale-of-logits"], item_id=item.id) for item in ITEMS[3:]}
    visitor.context.set_library(Library((own,), {**old.proved, **more}))
    visitor.context.learner = Learner(visitor.context.store, visitor.context.library.written)
    with client:
        yield visitor


def sat(visitor: Visitor, wrong: int) -> str:
    """The last page of a placement test with so many wrong answers at its start."""
    here = f"{TOPIC}/placement/{uuid.uuid4()}"
    page = visitor.get(here)
    for place in range(6):
        if "ticket" not in page:
            break
        right = place >= wrong
        texts = ["4.0", "16.0"] if asked(page) == "which-hold" else ["4.0"]
        page = answer(visitor, page, *(texts if right else ["1.0", "0.25"][: len(texts)]))
    return page


def test_six_right_answers_skip_the_topic(newcomer: Visitor) -> None:
    assert f"{TOPIC}/placement" in newcomer.get("/")
    assert f"{TOPIC}/placement" in newcomer.get(TOPIC)
    assert "6 questions at most" in newcomer.get(f"{TOPIC}/placement")
    page = sat(newcomer, wrong=0)
    assert "You can skip this topic" in page
    assert "6 of 6 right" in page
    there = newcomer.client.get("/next", follow_redirects=False).headers["location"]
    assert there == "/topics/attention/later/next"


def test_one_slip_is_allowed_and_two_end_it(newcomer: Visitor) -> None:
    page = sat(newcomer, wrong=2)
    assert "This topic is worth its time" in page
    assert "0 of 2 right" in page
    assert not newcomer.context.store.kept("passed:attention/one-head")
    assert "You can skip this topic" in sat(newcomer, wrong=1)


def test_a_topic_that_nothing_needs_has_no_placement_test(newcomer: Visitor) -> None:
    newcomer.get("/topics/attention/later/placement", 404)


def test_the_map_says_what_each_topic_needs(newcomer: Visitor) -> None:
    page = newcomer.get("/map")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    assert "About 13 minutes in all. Each step" in text
    assert "8 minutes · ready to begin" in text
    assert "5 minutes · needs more first needs: One head, step by step" in text
    newcomer.context.store.keep("passed:attention/one-head", "2026-03-04")
    assert "ready to begin needs: One head" in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", newcomer.get("/map")))


def test_a_topic_is_above_all_it_needs(pack: course.Pack) -> None:
    depth = topic_map.depths(pack)
    assert all(depth[need] < depth[topic.id] for topic in pack.topics for need in topic.needs)
    assert set(depth) == {topic.id for topic in pack.topics}
