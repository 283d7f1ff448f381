"""The shipped pack keeps what docs/pack.md promises: counts, concepts, links, and no misconception without an item.

Run as a program it writes the counts and concepts into docs/pack.md.
"""

import re
from collections import Counter
from pathlib import Path

import pytest

from clearhead import course
from clearhead.course import KINDS, Pack
from clearhead.course.pack.blocks import fences
from clearhead.course.pack.minutes import item_minutes, page_minutes, topic_minutes
from clearhead.course.pack.page_programs import page_programs

DOC = Path(__file__).parents[2] / "docs" / "pack.md"
COVERAGE = DOC.with_name("course-coverage.md")
FULL = ("attention-in-depth", "self-and-multi-head", "mha-in-pytorch")
BANK = ("choice", "predict", "debug", "tune", "worked", "order", "match")  # graded at once: what a test may ask
LEAST = {"card": 10, "choice": 10, "worked": 5, "explain": 3, "code": 3}
KINDS_IN_NUMBERS = ("card", "choice", "predict", "debug", "tune", "worked", "explain", "code")
SMALL = {"the", "and", "for", "with", "from", "that", "this", "each", "not", "are", "it", "one", "two"}
SENTENCE = "*The animal didn't cross the street because it was too tired.*"


@pytest.fixture(scope="module")
def pack() -> Pack:
    return course.load(next(path for path in course.shipped() if path.name == "attention"))


def test_every_topic_has_an_experiment_of_its_own(pack: Pack) -> None:
    named = [name for topic in pack.topics for name in topic.experiments]
    assert all(topic.experiments for topic in pack.topics)
    assert len(named) == len(set(named)), "two topics share one"


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
    assert sum(item.variants for item in pack.items_of(topic) if item.kind in BANK) >= 20


def test_the_course_is_large_enough_in_every_kind(pack):
    kinds = Counter(item.kind for item in pack.items.values())
    assert len(pack.items) >= 330
    assert {kind: kinds[kind] for kind in KINDS_IN_NUMBERS if kinds[kind] < 20} == {}


@pytest.mark.parametrize("mode", ["read", "why"])
def test_every_page_that_explains_has_a_live_figure(pack, mode):
    without = [
        topic.id
        for topic in pack.topics
        if not any(program.draws and program.over for program in page_programs(topic.pages[mode]))
        and not any(info == "lens" for info, _, _ in fences(topic.pages[mode].text, ""))
    ]
    assert without == []


@pytest.mark.parametrize("mode", ["read", "why"])
def test_every_page_that_explains_has_a_program_to_change(pack, mode):
    """A figure's program can be edited in place; a Read page also has one that prints."""
    programs = {topic.id: page_programs(topic.pages[mode]) for topic in pack.topics}
    assert [topic for topic, some in programs.items() if not any(one.edits or one.draws for one in some)] == []
    if mode == "read":
        assert [topic for topic, some in programs.items() if not any(one.edits and not one.draws for one in some)] == []


def test_declared_minutes_are_true_and_no_page_is_long(pack):
    declared = {topic.id: topic.minutes for topic in pack.topics}
    assert declared == {topic.id: topic_minutes(topic, pack.items_of(topic.id)) for topic in pack.topics}
    pages = {page.file: page_minutes(page) for topic in pack.topics for page in topic.pages.values()}
    assert {file: round(minutes, 1) for file, minutes in pages.items() if minutes > 7} == {}


def test_an_item_takes_less_than_its_clock_and_longer_than_reading_it(pack):
    for item in pack.items.values():
        words = len(item.stem.split()) + len(item.back.split())
        assert words / 200 < item_minutes(item) < item.time_limit / 60, item.id


def test_the_course_opens_with_its_sentence(pack):
    for topic in ("a-real-model", "attention-in-depth"):
        opening = pack.topic(topic).pages["read"].text[:200]
        assert opening.startswith(SENTENCE) or (opening.startswith("```guess") and SENTENCE.strip("*.") in opening), (
            topic
        )
    words = "animal didn't cross the street"
    without = [topic.id for topic in pack.topics if "animal" not in topic.pages["read"].text]
    assert without == []
    said = [topic.id for topic in pack.topics if words in " ".join(topic.pages["read"].text.split())]
    assert len(said) >= 10, said


def test_every_topic_says_what_it_needs(pack):
    first = {"before-you-start", "a-real-model"}
    assert [topic.id for topic in pack.topics if not topic.needs and topic.id not in first] == []


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


def test_titles_are_unique(pack):
    titles = Counter(item.title for item in pack.items.values())
    assert [title for title, number in titles.items() if number > 1] == []


def test_hints_come_in_twos_and_threes_and_none_is_the_rule(pack):
    asked = [item for item in pack.items.values() if item.kind != "card"]
    assert [item.id for item in asked if not 2 <= len(item.hints) <= 3] == []
    assert [item.id for item in asked if item.rule in item.hints] == []


def test_no_hint_says_the_rule_in_its_own_words(pack):
    """Hints that together have nearly all the words of the rule give the point away before the first try."""

    def words(*texts):
        return {word.rstrip("s") for word in re.findall(r"[a-zA-Z]{3,}", " ".join(texts).lower())} - SMALL

    told = {
        item.id: item.hints
        for item in pack.items.values()
        if item.kind != "card" and len(words(item.rule)) >= 4
        if len(words(item.rule) & words(*item.hints)) >= 0.78 * len(words(item.rule))
    }
    assert told == {}


def test_clocks_are_as_long_as_people_need(pack):
    assert {item.id: item.time_limit for item in pack.items.values() if item.time_limit < 90} == {}


def test_sheets_carry_the_other_names(pack):
    sheets = " ".join(pack.topic(topic).pages["recall"].text for topic in FULL)
    for name in ("head_dim", "$d_k$", "embed_dim", "$d_{model}$", "scores"):
        assert name in sheets, name


def test_the_coverage_table_names_what_is_there(pack):
    text = COVERAGE.read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| ") and not row.startswith(("| there", "|---"))]
    assert len(rows) >= 48
    pages = {f"{topic.id}/{mode}" for topic in pack.topics for mode in topic.pages}
    for row in rows:
        names = re.findall(r"`([a-z0-9/-]+)`", row.rsplit("|", 2)[1])
        assert names, row
        assert [name for name in names if name not in pack.items and name not in pages] == [], row


if __name__ == "__main__":
    write(course.load(next(path for path in course.shipped() if path.name == "attention")))
