"""Import questions of other programs as drafts: items with everything but a proof.

A draft is put into the pack's `drafts/` folder, where nothing shows it. Its checks raise until somebody writes them,
so that moving it to `items/` makes `clearhead check` refuse it until its answer is computed.
"""

import csv
import html as entities
import re
import sqlite3
import tempfile
import tomllib
import unicodedata
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearhead.course.bench import fence
from clearhead.course.exchange.gift import GiftQuestion, read_gift
from clearhead.errors import PackError

LARGEST = 64 << 20  # bytes of one file inside an .apkg


@dataclass(frozen=True, slots=True)
class Draft:
    """A question without a proof. `options` are (text, is right, feedback); none makes it a card."""

    title: str
    stem: str
    back: str
    options: tuple[tuple[str, bool, str], ...] = ()
    note: str = ""


_NOTES = "notes as Anki exports them as text: two fields a line, with a tab or what a line #separator: names between"
# What is read of each kind of file, by its ending.
HOLDS = {
    ".apkg": "notes of two fields or more",
    ".gift": "questions in Moodle's GIFT",
    ".toml": "[[questions]] of mdbook-quiz",
    ".txt": _NOTES,
    ".tsv": _NOTES,
    ".csv": _NOTES,
}


def read(place: Path) -> list[Draft]:
    """Read a file by its ending: .apkg, .gift, .toml (mdbook-quiz), .txt or .tsv or .csv (Anki's text export).

    Raises:
        PackError: it cannot be read, with the line where there is one; or it holds no question.
    """
    if not place.is_file():
        raise PackError(f"{place} is not a file")
    if place.suffix not in HOLDS:
        raise PackError(f"cannot import {place.suffix or place.name!r}; expected one of {', '.join(HOLDS)}")
    found = _read(place)
    if not found:
        raise PackError(f"holds no question; a {place.suffix} file holds {HOLDS[place.suffix]}", file=place.name)
    return found


def _read(place: Path) -> list[Draft]:
    if place.suffix == ".apkg":
        return _apkg(place)
    try:
        text = place.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise PackError("is not UTF-8 text; save it as UTF-8", file=place.name) from None
    if place.suffix == ".gift":
        return [_from_gift(one) for one in read_gift(text, place.name)]
    if place.suffix == ".toml":
        return _quiz(text, place.name)
    return _notes(text)


def _from_gift(one: GiftQuestion) -> Draft:
    stem = _text(one.stem)
    if one.pairs:
        listed = "\n".join(f"- {_text(left)}: {_text(right)}" for left, right in one.pairs)
        return Draft(one.title, stem, listed, note="pairs; make it a match item")
    if all(right for _, right, _ in one.options):
        return Draft(one.title, stem, "\n\n".join(_text(text) for text, _, _ in one.options))
    return Draft(one.title, stem, "", tuple((_text(text), right, _text(why)) for text, right, why in one.options))


def _quiz(text: str, file: str) -> list[Draft]:
    """mdbook-quiz: [[questions]] of type MultipleChoice, ShortAnswer or Tracing."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PackError(f"not valid TOML: {error}", file=file) from None
    found = []
    for one in data.get("questions", []):
        prompt, answer = one.get("prompt", {}), one.get("answer", {})
        stem, why = str(prompt.get("prompt", "")), str(one.get("context", ""))
        if one.get("type") == "MultipleChoice":
            right = answer.get("answer", [])
            rights = [str(each) for each in (right if isinstance(right, list) else [right])]
            wrong = [str(each) for each in prompt.get("distractors", [])]
            options = [(each, True, why) for each in rights] + [(each, False, "") for each in wrong]
            found.append(Draft("", stem, "", tuple(options)))
        elif one.get("type") == "Tracing":
            program = fence(str(prompt.get("program", "")), "rust")
            prints = str(answer.get("stdout", "")) if answer.get("doesCompile") else "It does not compile."
            found.append(Draft("", f"What does this print?\n\n{program}", f"{prints}\n\n{why}".strip()))
        else:
            found.append(Draft("", stem, f"{answer.get('answer', '')}\n\n{why}".strip()))
    return found


def _notes(text: str) -> list[Draft]:
    """Anki's text export: `#key:value` lines, then a note a line."""
    names = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|", "colon": ":"}
    separator, rows = "\t", []
    for row in text.splitlines():
        if row.startswith("#separator:"):
            word = row.partition(":")[2].strip().lower()
            separator = names.get(word, word[:1] or "\t")
        elif row.strip() and not row.startswith("#"):
            rows.append(row)
    notes = csv.reader(rows, delimiter=separator)
    return [Draft("", _text(fields[0]), _text(fields[1])) for fields in notes if len(fields) >= 2]


def _apkg(place: Path) -> list[Draft]:
    """The first two fields of each note, read from the package's SQLite file; nothing of it is run."""
    try:
        with zipfile.ZipFile(place) as package:
            names = [name for name in ("collection.anki21", "collection.anki2") if name in package.namelist()]
            if not names:
                raise PackError(
                    "holds no collection.anki2; export it with `Support older Anki versions`", file=place.name
                )
            if package.getinfo(names[0]).file_size > LARGEST:
                raise PackError(f"its collection is more than {LARGEST:,} bytes", file=place.name)
            data = package.read(names[0])
    except zipfile.BadZipFile:
        raise PackError("is not an Anki package (not a zip file)", file=place.name) from None
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "collection"
        copy.write_bytes(data)
        try:
            connection = sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)
            rows = connection.execute("SELECT flds FROM notes ORDER BY id").fetchall()
            connection.close()
        except sqlite3.DatabaseError as error:
            raise PackError(f"its collection cannot be read: {error}", file=place.name) from None
    fields = [str(row[0]).split("\x1f") for row in rows]
    return [Draft("", _text(one[0]), _text(one[1])) for one in fields if len(one) >= 2]


def _text(markup: str) -> str:
    """HTML as Markdown, roughly: code and paragraphs stay, the rest of the tags goes."""
    if "<" not in markup and "&" not in markup:
        return markup.strip()
    text = re.sub(r"<pre[^>]*>(?:<code[^>]*>)?(.*?)(?:</code>)?</pre>", r"\n```\n\1\n```\n", markup, flags=re.DOTALL)
    text = re.sub(r"</?code[^>]*>", "`", text)
    text = re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"<br\s*/?>|</(p|div|li|h\d|tr)>", "\n", text)
    text = entities.unescape(re.sub(r"</?[a-zA-Z][^<>]*>", "", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def write(found: Sequence[Draft], pack: Path, topic: str) -> list[Path]:
    """Write the drafts into <pack>/drafts; return their files. A name that is taken gets a number."""
    folder = pack / "drafts"
    folder.mkdir(exist_ok=True)
    taken = {file.stem for name in ("items", "drafts") for file in (pack / name).glob("*.md")}
    places = []
    for one in found:
        name = _slug(one.title or one.stem, taken)
        taken.add(name)
        place = folder / f"{name}.md"
        place.write_text(_markdown(one, name, topic), encoding="utf-8")
        places.append(place)
    return places


def _slug(text: str, taken: Iterable[str]) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", plain)[:6] or ["question"]
    base = "-".join(words)[:56].strip("-")
    name, number = base, 2
    while name in set(taken):
        name, number = f"{base}-{number}", number + 1
    return name


def _markdown(one: Draft, name: str, topic: str) -> str:
    kind = "choice" if one.options else "card"
    right = f"right = {sum(ok for _, ok, _ in one.options)}\n" if one.options else ""
    front = f'+++\nid = "{name}"\nkind = "{kind}"\ntopic = "{topic}"\nconcepts = ["unsorted"]\n{right}+++\n'
    parts = [front, f"## Stem\n\n{_shift(one.stem)}"]
    for number, (text, ok, why) in enumerate(one.options, 1):
        belief = "" if ok else f" misconception=name-{number}"
        todo = fence(
            'raise NotImplementedError("compute whether this option holds, in `holds`")', f"python check{belief}"
        )
        parts.append(f"## Option\n\n{_shift(text)}\n\n{todo}")
        if why and not ok:
            parts.append(f"## Rationale name-{number}\n\n{_shift(why)}")
    if kind == "card":
        parts.append(f"## Back\n\n{_shift(one.back) or '…'}")
        parts.append(fence('raise NotImplementedError("assert what the back claims")', "python proof"))
    if one.note:
        parts.append(f"## Pitfalls\n\nImported {one.note}.")
    parts.append("## Rule\n\nSay the point in one sentence.")
    return "\n\n".join(parts) + "\n"


def _shift(text: str) -> str:
    """Headings inside imported text must not become sections."""
    return re.sub(r"^(#{1,6}\s|\+\+\+)", r"\\\1", text.strip(), flags=re.MULTILINE)
