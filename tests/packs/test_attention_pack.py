"""The shipped pack keeps what docs/pack.md promises: counts, concepts, links, and no misconception without an item.

Run as a program it writes the counts and concepts into docs/pack.md.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from clearhead import course
from clearhead.course import KINDS, Pack

DOC = Path(__file__).parents[2] / "docs" / "pack.md"
FULL = ("attention-in-depth", "self-and-multi-head", "mha-in-pytorch")
BANK = ("choice", "predict", "debug", "tune", "worked", "order", "match")  # graded at once: what a test may ask
LEAST = {"card": 15, "choice": 12, "worked": 6, "explain": 3, "code": 4}


@pytest.fixture(scope="module")
def pack() -> Pack:
    return course.load(next(path for path in course.shipped() if path.name == "attention"))


def counts(pack: Pack) -> str:
    """A Markdown table: topics down, kinds across."""
    rows = [f"| topic | {' | '.join(KINDS)} | all | with variants |", f"|---{'|---:' * (len(KINDS) + 2)}|"]
    items = list(pack.items.values())
    for title, some in [(t.title, pack.items_of(t.id)) for t in pack.topics] + [("all", items)]:
        kinds = Counter(item.kind for item in some)
        numbers = [*(kinds[kind] for kind in KINDS), len(some), sum(item.variants for item in some)]
        rows.append(f"| {title} | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows)


def concepts(pack: Pack) -> str:
    """Every concept with the number of its items."""
    found = Counter(concept for item in pack.items.values() for concept in item.concepts)
    return ", ".join(f"`{name}` {number}" for name, number in sorted(found.items()))


def part(name: str, text: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", text, re.DOTALL)
    assert found, f"docs/pack.md has no <!-- {name} --> part"
    return found[1].strip()


def write(pack: Pack) -> None:
    text = DOC.read_text(encoding="utf-8")
    for name, made in (("counts", counts(pack)), ("concepts", concepts(pack))):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{made}\n{end}{rest.partition(end)[2]}"
    DOC.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("name", "make"), [("counts", counts), ("concepts", concepts)])
def test_the_doc_is_the_pack(pack, name, make):
    """Mended by `python tests/packs/test_attention_pack.py`."""
    assert part(name, DOC.read_text(encoding="utf-8")) == make(pack)


@pytest.mark.parametrize("topic", FULL)
def test_a_full_topic_is_full(pack, topic):
    kinds = Counter(item.kind for item in pack.items_of(topic))
    short = {kind: kinds[kind] for kind, least in LEAST.items() if kinds[kind] < least}
    assert not short
    assert kinds["predict"] + kinds["debug"] + kinds["tune"] >= 10
    assert set(pack.topic(topic).pages) >= {"read", "why", "recall"}
    assert sum(item.variants for item in pack.items_of(topic) if item.kind in BANK) >= 30


@pytest.mark.parametrize("topic", FULL)
def test_a_full_topic_has_two_challenges_that_share_no_problem(pack, topic):
    challenges = pack.topic(topic).challenges
    problems = [item for one in challenges for item in one.problems.values()]
    assert len(challenges) == 2
    assert len(set(problems)) == 10


def test_every_topic_can_be_read_and_practised(pack):
    for topic in pack.topics:
        assert set(topic.pages) >= {"read", "why", "recall"}, topic.id
        assert sum(item.kind in BANK for item in pack.items_of(topic.id)) >= 7, topic.id


def test_read_pages_end_in_two_questions_of_their_topic(pack):
    for topic in pack.topics:
        asked = re.findall(r"\]\(/items/([a-z0-9-]+)\)", topic.pages["read"].text)
        assert len(asked) == 2, topic.id
        assert all(pack.items[one].topic == topic.id for one in asked), topic.id


def test_every_misconception_is_acted_out(pack):
    used = {program.misconception for item in pack.items.values() for program in item.programs}
    assert set(pack.misconceptions) - used == set()


def test_titles_are_unique_and_hints_are_there(pack):
    titles = Counter(item.title for item in pack.items.values())
    assert [title for title, number in titles.items() if number > 1] == []
    assert [
        item.id for item in pack.items.values() if item.kind in ("choice", "predict", "debug") and not item.hints
    ] == []


if __name__ == "__main__":
    write(course.load(next(path for path in course.shipped() if path.name == "attention")))
