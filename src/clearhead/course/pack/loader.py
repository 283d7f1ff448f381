"""Load a pack folder as a typed `Pack`. Nothing is run here; `prove` does that."""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path

import clearhead
from clearhead import sandbox
from clearhead.course.pack.blocks import Document, document, toml
from clearhead.course.pack.front_matter import Front, PackFront, TopicFront, read_front
from clearhead.course.pack.item import CLOCKS, MODES, SLOTS, Challenge, Item, Pack, Page, Topic
from clearhead.course.pack.links import check_challenges, check_interview, check_links, check_needs, check_topics
from clearhead.course.pack.page_programs import page_programs
from clearhead.course.pack.prose import check_prose
from clearhead.course.pack.rules import check_item
from clearhead.errors import PackError
from clearhead.text_encoding import UndecodableError, decode_text, with_unix_lines

LARGEST_FILE = 1_000_000  # bytes; an item is a page of text
LONGEST_LINE = 100_000  # characters
MOST_FILES = 5_000  # of one folder
LARGEST_PACK = 10_000_000  # bytes of all its texts; a million bytes take at most 2.5 s of processor time


def shipped() -> list[Path]:
    """Return the folders of the packs inside the package, by name."""
    root = Path(clearhead.__file__).parent / "packs"
    return sorted(path.parent for path in root.glob("*/pack.toml"))


def find(name: str | Path) -> Path:
    """Return the folder of a pack, given as the path of a folder with a pack.toml or as the name of a shipped pack.

    Raises:
        PackError: neither; the message lists the names of the shipped packs.
    """
    path, names = Path(name), {folder.name: folder for folder in shipped()}
    if str(path) in names and not (path / "pack.toml").is_file():
        return names[str(path)]
    if not path.exists():
        known = ", ".join(names)
        raise PackError(
            f"{path} is not a folder, nor the name of a shipped pack ({known}). `clearhead new pack NAME` makes one."
        )
    return path


def load(path: str | Path) -> Pack:
    """Read the pack in the folder `path`.

    Returns:
        A Pack; its items are well formed and not yet proved.
    Raises:
        PackError: what is wrong, with `file` (inside the pack) and `line`.

    >>> pack = load(shipped()[0])
    >>> pack.id
    'attention'
    """
    root = Path(path)
    if not root.is_dir():
        raise PackError(
            f"{root} is not a folder; a pack is a folder with a pack.toml. `clearhead new pack NAME` makes one."
        )
    sandbox.hide(root)  # its programs must not read its answers
    text = _read(root, root / "pack.toml")
    data, lines = toml(text, "pack.toml")
    front = read_front(PackFront, data, lines, "pack.toml")
    _check_size(root, [root / "items", *(root / "topics" / topic.id for topic in front.topics)])
    topics = tuple(
        Topic(
            id=topic.id,
            title=topic.title,
            summary=topic.summary,
            order=order,
            minutes=topic.minutes,
            needs=tuple(topic.needs),
            walk=topic.walk,
            experiments=tuple(topic.experiments),
            pages=_pages(root, topic.id),
            challenges=_challenges(topic),
        )
        for order, topic in enumerate(front.topics)
    )
    check_topics(topics, text)
    items = _items(root, front.misconceptions, {topic.id: topic.order for topic in topics})
    check_challenges(topics, items, text)
    check_needs(topics, text)
    check_links(topics, items)
    check_interview(front.interview, items, lines.get("interview", 1))
    whole = hashlib.sha256(text.encode())
    for item in items.values():
        whole.update(item.hash.encode())
    return Pack(
        id=front.id,
        title=front.title,
        summary=front.summary,
        version=front.version,
        path=root,
        topics=topics,
        items=items,
        misconceptions=front.misconceptions,
        preload=tuple(front.preload),
        interview=tuple(map(tuple, front.interview)),
        hash=whole.hexdigest(),
    )


def _read(root: Path, file: Path) -> str:
    """Return the text of a file of the pack. Links are refused: a pack must not show files outside its folder."""
    name = file.relative_to(root).as_posix()
    if any(part.is_symlink() for part in (file, *file.parents) if part != root and root in part.parents):
        raise PackError("is a symbolic link; a pack holds only its own files. Put the file itself here.", file=name)
    if not file.exists():
        raise PackError(f"{name} is missing in {root}", file=name)
    if not file.is_file():
        raise PackError("is a folder, a pipe or a device; a pack holds plain files", file=name)
    if file.stat().st_size > LARGEST_FILE:
        raise PackError(f"is {file.stat().st_size:,} bytes; at most {LARGEST_FILE:,} are read", file=name)
    try:
        text = with_unix_lines(decode_text(file.read_bytes()))
    except UndecodableError as error:
        raise PackError(str(error), file=name, line=error.line) from None
    for number, row in enumerate(text.splitlines(), 1):
        if len(row) > LONGEST_LINE:
            raise PackError(f"has {len(row):,} characters; at most {LONGEST_LINE:,} are read", file=name, line=number)
    return text


def _texts(root: Path, folder: Path) -> list[Path]:
    """Return the .md files of a folder, by name."""
    files = sorted(islice(folder.glob("*.md"), MOST_FILES + 1))
    if len(files) > MOST_FILES:
        name = folder.relative_to(root).as_posix()
        raise PackError(f"holds more than {MOST_FILES:,} files; make several packs", file=name)
    return files


def _check_size(root: Path, folders: Iterable[Path]) -> None:
    """Refuse a pack whose texts are too large together, before any of them is read."""
    size = sum(file.lstat().st_size for folder in folders for file in _texts(root, folder))
    if size > LARGEST_PACK:
        message = f"its pages and items come to {size:,} bytes; at most {LARGEST_PACK:,} are read. Make several packs."
        raise PackError(message, file="pack.toml")


def _pages(root: Path, topic: str) -> Mapping[str, Page]:
    """Return the pages topics/<topic>/<mode>.md, by mode."""
    pages: dict[str, Page] = {}
    for file in _texts(root, root / "topics" / topic):
        name = file.relative_to(root).as_posix()
        if file.stem not in MODES:
            raise PackError(f"{file.stem!r} is not a mode; expected one of {', '.join(MODES)}", file=name)
        text = _read(root, file)
        check_prose(text, name, 1)
        page = Page(file.stem, text, name)
        page_programs(page)  # raises if a figure has a malformed slider
        pages[file.stem] = page
    return pages


def _challenges(topic: TopicFront) -> tuple[Challenge, ...]:
    return tuple(
        Challenge(challenge.id, challenge.title, challenge.summary, {slot: getattr(challenge, slot) for slot in SLOTS})
        for challenge in topic.challenges
    )


def _items(root: Path, misconceptions: Mapping[str, str], order: Mapping[str, int]) -> dict[str, Item]:
    """Return every items/*.md, in topic order and then by file name.

    Raises:
        PackError: of the first item that is wrong; `others` has those of the other items.
    """
    items: list[Item] = []
    wrong: list[PackError] = []
    for file in _texts(root, root / "items"):
        try:
            items.append(_item(root, file, misconceptions, order))
        except PackError as error:
            wrong.append(error)
    if wrong:
        wrong[0].others = wrong[1:]
        raise wrong[0]
    if not items:
        raise PackError("no items; add items/<id>.md. `clearhead new item` makes one.", file="items")
    items.sort(key=lambda item: (order[item.topic], item.file))
    return {item.id: item for item in items}


def _item(root: Path, file: Path, misconceptions: Mapping[str, str], topics: Mapping[str, int]) -> Item:
    name = file.relative_to(root).as_posix()
    text = _read(root, file)
    parts = document(text, name)
    for section in parts.sections:
        check_prose(section.text, name, section.text_line)
    front = read_front(Front, dict(parts.front), dict(parts.lines), name)
    if front.id != file.stem:
        raise PackError(
            f"id is {front.id!r} and the file is {file.name}; they must be the same", file=name, line=parts.lines["id"]
        )
    if front.topic not in topics:
        known = ", ".join(topics)
        raise PackError(
            f"topic {front.topic!r} is not in pack.toml; known: {known}", file=name, line=parts.lines["topic"]
        )
    item = _assemble(front, parts, name, _hash(text, parts, misconceptions))
    check_item(item, misconceptions)
    return item


def _assemble(front: Front, parts: Document, name: str, digest: str) -> Item:
    sections = parts.sections

    def text(wanted: str) -> str:
        return next((section.text for section in sections if section.name == wanted), "")

    rev, meaning = front.rev, front.meaning_rev
    if meaning is None:
        meaning = rev if front.change == "semantic" else 1
    return Item(
        id=front.id, kind=front.kind, topic=front.topic, rev=rev, meaning_rev=min(meaning, rev), title=front.title,
        concepts=tuple(front.concepts), difficulty=front.difficulty, attempts=front.attempts,
        time_limit=front.time_limit or CLOCKS[front.kind], seed=front.seed, variants=front.variants, right=front.right,
        tolerance=front.tolerance, unit=front.unit, evidence=front.evidence, source=front.source, file=name,
        hash=digest, stem=text("Stem"), back=text("Back"), rule=text("Rule"), pitfalls=text("Pitfalls"),
        hints=tuple(section.text for section in sections if section.name == "Hint"),
        rationales={section.argument: section.text for section in sections if section.name == "Rationale"},
        programs=parts.programs, sections=sections, lines=parts.lines,
    )  # fmt: skip


def _hash(text: str, parts: Document, misconceptions: Mapping[str, str]) -> str:
    """Return the hash of an item: of its file and of the sentences it uses from pack.toml."""
    named = sorted({program.misconception for program in parts.programs if program.misconception})
    words = [text, *(f"{belief}={misconceptions.get(belief, '')}" for belief in named)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()
