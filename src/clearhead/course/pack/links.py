"""Check references inside a pack: links to items, problems of challenges, questions of an interview."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from clearhead.course.pack.item import GRADED_AT_ONCE, SLOTS, Item, Topic
from clearhead.errors import PackError

_LINK = re.compile(r"\]\(/items/([^)#?\s]*)")
_PICTURE = re.compile(r"!\[[^\]\n]{0,500}\]\((?!data:)([^)\n]{0,500})")
_CODE = re.compile(r"^ {0,3}(`{3,40}|~{3,40}).*?^ {0,3}\1|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def check_links(topics: Iterable[Topic], items: Mapping[str, Item]) -> None:
    """Raise PackError, with its line, for a link to an item that the pack lacks, or for a picture in a file."""
    for topic in topics:
        for page in topic.pages.values():
            _check(page.text, page.file, 1, items)
    for item in items.values():
        for section in item.sections:
            _check(section.text, item.file, section.text_line, items)


def _check(text: str, file: str, first_line: int, items: Mapping[str, Item]) -> None:
    prose = _CODE.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    for match in _LINK.finditer(prose):
        if match[1] not in items:
            line = first_line + prose.count("\n", 0, match.start())
            raise PackError(f"links to /items/{match[1]}, and the pack has no such item", file=file, line=line)
    for match in _PICTURE.finditer(prose):
        line = first_line + prose.count("\n", 0, match.start())
        why = f"shows {match[1]}, and a pack brings no picture files; draw it with an item's `figure` program"
        raise PackError(why, file=file, line=line)


def check_topics(topics: Iterable[Topic], text: str) -> None:
    """Raise PackError, with its line of pack.toml, for a topic's id that appears twice."""
    for name, count in Counter(topic.id for topic in topics).items():
        if count > 1:
            raise _wrong(text, "id", name, f"topic {name!r} appears twice; ids are unique")


def check_challenges(topics: Iterable[Topic], items: Mapping[str, Item], text: str) -> None:
    """Raise PackError, with its line of pack.toml, for a problem that is not in the topic, or is of the wrong kind."""
    for topic in topics:
        names = [challenge.id for challenge in topic.challenges]
        for challenge in topic.challenges:
            if names.count(challenge.id) > 1:
                raise _wrong(
                    text, "id", challenge.id, f"challenge {challenge.id!r} appears twice in a topic; ids are unique"
                )
            for slot, name in challenge.problems.items():
                item = items.get(name)
                if item is None:
                    raise _wrong(text, slot, name, f"`{slot}` names {name!r}, and the pack has no such item")
                if item.topic != topic.id:
                    message = f"{name!r} is of topic {item.topic!r}; a challenge takes items of its own, {topic.id!r}"
                    raise _wrong(text, slot, name, message)
                if item.kind not in SLOTS[slot]:
                    expected = " or ".join(SLOTS[slot])
                    raise _wrong(text, slot, name, f"{name!r} is a {item.kind} item; `{slot}` takes a {expected}")


def check_needs(topics: Iterable[Topic], text: str) -> None:
    """Raise PackError, with its line of pack.toml, for a topic that needs a topic which does not come before it."""
    before: set[str] = set()
    for topic in topics:
        for need in topic.needs:
            if need not in before:
                raise _wrong(text, "id", topic.id, f"topic {topic.id!r} needs {need!r}, which is not a topic before it")
        before.add(topic.id)


def check_interview(rows: Iterable[Iterable[str]], items: Mapping[str, Item], line: int) -> None:
    """Raise PackError for a question of the interview that the pack lacks, has twice, or cannot grade at once."""
    seen: set[str] = set()
    for name in (name for row in rows for name in row):
        item = items.get(name)
        if item is None:
            why = f"`interview` names {name!r}, and the pack has no such item"
        elif item.kind not in GRADED_AT_ONCE:
            why = f"`interview` names {name!r}, a {item.kind} item; it takes {', '.join(GRADED_AT_ONCE)}"
        elif name in seen:
            why = f"`interview` names {name!r} twice; each question belongs to one subject"
        else:
            seen.add(name)
            continue
        raise PackError(why, file="pack.toml", line=line)


def _wrong(text: str, key: str, value: str, message: str) -> PackError:
    matches = list(re.finditer(rf'^\s*{key}\s*=\s*"{re.escape(value)}"', text, re.MULTILINE))
    line = text.count("\n", 0, matches[-1].start()) + 1 if matches else None
    return PackError(message, file="pack.toml", line=line)
