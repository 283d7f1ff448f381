"""Write skeletons for `clearhead new`: a pack, or an item of any kind. An item fails the check until it is written."""

import json
import re
from pathlib import Path

from clearhead.course.pack.front_matter import ID, Front, PackFront
from clearhead.course.pack.item import KINDS
from clearhead.course.pack.loader import load
from clearhead.errors import OptionError
from clearhead.files import whole_folder, write_new

_PACK = """id = "{name}"
title = "{title}"
summary = "What this pack teaches, in one sentence."
version = "0.1.0"
preload = ["torch"]

[[topics]]
id = "first-topic"
title = "The first topic"
summary = "What this topic teaches, in one sentence."
minutes = 5

[misconceptions]
adds-instead = "The two numbers are added."
"""
_READ = """What there is to know, in a page. Programs marked `run` are run, and their output is shown:

```python run
print(6 * 7)
```
"""
_FRONT = """+++
id = "{name}"
kind = "{kind}"
topic = "{topic}"
concepts = ["{concept}"]
{more}+++

## Stem

{stem}
"""
_RULE = "\n## Rule\n\nThe point of it, in one sentence.\n"
_TODO = 'raise NotImplementedError("{what}")'

# kind -> the rest of the item. `@what@` becomes a line that raises until the author has written it.
_BODIES = {
    "card": "\n## Back\n\nThe answer, {{answer}}.\n\n```python proof\n@compute `answer`, and assert the claim@\n```\n",
    "choice": (
        "\n## Option\n\nThe right statement.\n\n```python check\n@set `holds`@\n```\n"
        "\n## Option\n\nA wrong statement.\n\n```python check misconception=adds-instead\n"
        "@set `holds`, and `counterexample`@\n```\n\n## Rationale\n\nWhy it holds.\n"
        "\n## Rationale adds-instead\n\nWhy it does not.\n"
    ),
    "predict": (
        "\n```python given\n@what the learner reads; it prints@\n```\n"
        "\n```python distractor misconception=adds-instead\n@the program as its holder reads it@\n```\n"
        "\n## Rationale\n\nWhy it prints that.\n\n## Rationale adds-instead\n\nWhy it does not print that.\n"
    ),
    "debug": (
        "\n```python given\n@the program with the fault@\n```\n\n```python tests\n@assert what it should do@\n```\n"
        "\n```python patch lines=1\n@the repair@\n```\n"
        "\n```python patch lines=1 misconception=adds-instead\n@a change that does not help@\n```\n"
        "\n## Rationale\n\nWhy it helps.\n\n## Rationale adds-instead\n\nWhy it does not.\n"
    ),
    "tune": (
        "\n```python sweep\n@set `table`: a list of dicts, one per setting@\n```\n"
        "\n```python answer\n@set `answer` to the best setting@\n```\n"
        "\n```python distractor misconception=adds-instead\n@set `answer` to what its holder would take@\n```\n"
        "\n## Rationale\n\nWhy it is best.\n\n## Rationale adds-instead\n\nWhy it is not.\n"
    ),
    "worked": (
        "\n## Step First\n\nWhat is done.\n\n```python step\n@set `result`@\n```\n"
        "\n## Step Second\n\nWhat is done with it.\n\n```python step\n@set `result`@\n```\n"
    ),
    "explain": (
        "\n```python proof\n@assert what can be measured of the claim@\n```\n"
        "\n## Criterion cause\n\nIt names the cause.\n\nany: because, since\nany: the phrase, the same in other words\n"
        "\n```text exemplar\nA good answer.\n```\n\n```text paraphrase\nThe same in other words.\n```\n"
        "\n```text negated\nThe opposite.\n```\n\n```text keywords\ncause, phrase\n```\n"
    ),
    "code": (
        "\n```python starter\ndef answer(): ...\n```\n\n```python solution\n@a right program@\n```\n"
        "\n```python mutant misconception=adds-instead\n@what its holder would write@\n```\n"
        '\n```python tests\ndef test_answer():\n    "what a right answer does"\n    assert answer() == 42\n```\n'
        "\n## Rationale adds-instead\n\nWhy it is wrong.\n"
    ),
    "order": (
        "\n```python step\n@the first step@\n```\n\n```python step\n@the second step@\n```\n"
        "\n```python step\n@the third step@\n```\n\n```python tests\n@assert what the right order gives@\n```\n"
    ),
    "match": "".join(
        f"\n## Pair {left}\n\n```python pair\n@set `result`@\n```\n" for left in ("`one`", "`two`", "`three`")
    ),
}  # fmt: skip
_STEMS = {"predict": "What does this print?", "debug": "Which change fixes it?"}


def new_pack(place: Path) -> Path:
    """Make a pack folder with one topic and one card that passes the check. Raises OptionError if it is not empty."""
    name = place.name
    _check_name(name)
    if place.exists() and any(place.iterdir()):
        raise OptionError(f"{place} already exists and is not empty; give another name")
    title = name.replace("-", " ").capitalize()
    first = _FRONT.format(name="first-card", kind="card", topic="first-topic", concept="arithmetic", more="",
                          stem="What is {{a}} times {{b}}?")  # fmt: skip
    body = (
        "\n## Back\n\n{{answer}}\n\n```python proof\na, b = 6, 7\nanswer = a * b\nassert answer == sum([a] * b)\n```\n"
    )
    with whole_folder(place) as folder:
        for file, content in (
            ("pack.toml", _PACK.format(name=name, title=title)),
            ("topics/first-topic/read.md", _READ),
            ("items/first-card.md", first + body + _RULE),
        ):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(content, encoding="utf-8")
    return place


def new_item(pack: Path, name: str, kind: str, topic: str | None = None) -> Path:
    """Write items/<name>.md, a skeleton of this kind whose programs raise until they are written.

    Raises:
        OptionError: no such kind or topic, a bad name, or the item already exists.
        PackError: the pack cannot be read.
    """
    _check_name(name)
    if kind not in KINDS:
        raise OptionError(f"no kind {kind!r}; expected one of {', '.join(KINDS)}")
    loaded = load(pack)
    known = [existing.id for existing in loaded.topics]
    if topic is not None and topic not in known:
        raise OptionError(f"the pack has no topic {topic!r}; expected one of {', '.join(known)}")
    place = pack / "items" / f"{name}.md"
    if place.exists() or place.is_symlink():
        raise OptionError(f"{place} already exists; give another name")
    belief = next(iter(loaded.misconceptions), "adds-instead")
    body = re.sub(r"@([^@\n]+)@", lambda match: _TODO.format(what=match[1]), _BODIES[kind])
    more = "right = 1\n" if kind == "choice" else ""
    front = _FRONT.format(name=name, kind=kind, topic=topic or known[0], concept="concept", more=more,
                          stem=_STEMS.get(kind, "The question."))  # fmt: skip
    write_new(place, front + body.replace("adds-instead", belief) + _RULE)
    return place


def schema(of: str = "item") -> str:
    """Return the JSON schema of an item's front matter, or of pack.toml ("pack"), as text.

    Raises:
        OptionError: it is neither.
    """
    if of not in ("item", "pack"):
        raise OptionError(f"there is no schema of {of!r}. Ask for the one of an item or of a pack: item, pack.")
    model = PackFront if of == "pack" else Front
    return json.dumps(model.model_json_schema(), indent=1) + "\n"


def _check_name(name: str) -> None:
    if not re.fullmatch(ID, name):
        raise OptionError(f"{name!r} is not a name; use lower-case letters, digits and hyphens")
