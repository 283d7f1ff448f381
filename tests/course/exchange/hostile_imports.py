# ruff: noqa: S608 — the statements are made to harm
"""Imports of hostile files, one after another, in a process whose memory the system bounds.

With the argument `all` the long ones too, and longer texts. Prints one line each: the name, the functions that were called, the bytes of the file, whether it was imported, refused,
or raised, and what was said. A reader that never comes to an end is stopped.
"""

import io
import json
import resource
import signal
import sqlite3
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from clearhead.course.exchange.draft import write
from clearhead.course.exchange.drafts import read
from clearhead.errors import PackError
from growth import Calls

MEMORY = 3 << 30  # bytes of address space: several times what any of these takes
SECONDS = 300  # of the processor, for each: a linear reader takes a few, so only one that does not end is stopped
MANY = 100_000  # characters, or so
FEWER = 30_000  # of the texts that take long, but where all is asked for
LONG = ("gaps.apkg",)  # many seconds
NOTES = "CREATE TABLE notes (id INTEGER, guid TEXT, mid INTEGER, tags TEXT, flds TEXT);"
COL = "CREATE TABLE col (models TEXT, decks TEXT);"
ENDLESS = "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r)"


def package(*statements: str, rows: list[tuple[object, ...]] | None = None, sql: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "c"
        connection = sqlite3.connect(place)
        for statement in statements:
            connection.executescript(statement)
        if rows:
            connection.executemany(sql or "INSERT INTO notes VALUES (?, 'g', 1, '', ?)", rows)
        connection.commit()
        connection.close()
        return zipped({"collection.anki2": place.read_bytes()})


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return made.getvalue()


def lying(data: bytes) -> bytes:
    """The zip file with sizes of its members that are too small, in both of its directories."""
    changed = bytearray(data)
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = changed.find(mark)
        changed[start + at : start + at + 4] = struct.pack("<I", 1000)
    return bytes(changed)


def templates(question: str, values: str, fields: int = 1, count: int = 1) -> bytes:
    model = {
        "name": "T", "type": 0, "flds": [{"name": f"F{n}"} for n in range(fields)],
        "tmpls": [{"name": f"C{n}", "qfmt": question, "afmt": "a"} for n in range(count)],
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "c"
        connection = sqlite3.connect(place)
        connection.executescript(NOTES + COL)
        connection.execute("INSERT INTO col VALUES (?, '{}')", (json.dumps({"1": model}),))
        connection.execute("INSERT INTO notes VALUES (1, 'g', 1, '', ?)", (values,))
        connection.commit()
        connection.close()
        return zipped({"collection.anki2": place.read_bytes()})


def zstd(data: bytes) -> bytes:
    import zstandard

    return zipped({"collection.anki21b": zstandard.ZstdCompressor().compress(data)}, zipfile.ZIP_STORED)


MULTIPLE = "<quiz><question type='multichoice'><answer fraction='nan'><text>a</text></answer></question></quiz>"


def html(text: str) -> Callable[[], bytes]:
    return lambda: f"::t:: [html]{text} {{}}".encode()


def packages() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Anki's."""
    yield "recursive view.apkg", lambda: package(f"CREATE VIEW notes AS {ENDLESS} SELECT n AS id FROM r;")
    yield "large view.apkg", lambda: package("CREATE VIEW notes AS SELECT zeroblob(1000000000) AS flds;")
    yield "another view.apkg", lambda: package(NOTES + f"CREATE VIEW x AS {ENDLESS} SELECT n FROM r;")
    computed = (
        "CREATE TABLE notes (id INTEGER, flds TEXT AS (hex(zeroblob(400000000))));INSERT INTO notes(id) VALUES (1);"
    )
    yield "computed column.apkg", lambda: package(computed)
    stored = "CREATE TABLE notes (id INTEGER, flds TEXT AS (id || 'x') STORED);INSERT INTO notes(id) VALUES (1);"
    yield "stored column.apkg", lambda: package(stored)
    index = "CREATE INDEX i ON notes(hex(zeroblob(400000000)));"
    yield "computed index.apkg", lambda: package(NOTES + index, rows=None)
    yield "virtual table.apkg", lambda: package("CREATE VIRTUAL TABLE notes USING fts5(id, flds);")
    trigger = "CREATE TRIGGER t AFTER INSERT ON notes BEGIN DELETE FROM notes; END;"
    yield "trigger.apkg", lambda: package(NOTES + trigger)
    yield (
        "large value.apkg",
        lambda: package(NOTES + "INSERT INTO notes VALUES (1, '', 1, '', hex(zeroblob(9000000)));"),
    )
    added = NOTES + f"INSERT INTO notes(id) {ENDLESS} SELECT n FROM r LIMIT 200000;"
    default = (
        f"ALTER TABLE notes RENAME COLUMN flds TO old;ALTER TABLE notes ADD COLUMN flds TEXT DEFAULT '{'x' * 90000}';"
    )
    yield "default of a column.apkg", lambda: package(added + default)
    yield "not sqlite.apkg", lambda: zipped({"collection.anki2": b"SQLite format 3\0" + bytes(5000)})
    yield "text for numbers.apkg", lambda: package(NOTES, rows=[("one", "q\x1fa"), (None, "q\x1fb")])
    yield "bomb.apkg", lambda: zipped({"collection.anki2": bytes(80 << 20)})
    yield "bomb that lies.apkg", lambda: lying(zipped({"collection.anki2": bytes(80 << 20)}))
    yield "bomb in bzip2.apkg", lambda: zipped({"collection.anki2": bytes(80 << 20)}, zipfile.ZIP_BZIP2)
    yield "bomb in zstd.apkg", lambda: zstd(bytes(80 << 20))
    yield "window of zstd.apkg", lambda: zipped({"collection.anki21b": b"\x28\xb5\x2f\xfd\x00\xb0" + b"\1\0\0" * 9})
    yield "many members.apkg", lambda: zipped({f"{n}": b"" for n in range(20_000)} | {"collection.anki2": b""})
    yield "not zip.apkg", lambda: b"PK\5\6" + bytes(30)
    yield "spaces in braces.apkg", lambda: templates("{{" + " " * 90_000, "q\x1fa")
    yield "long template.apkg", lambda: templates("x" * 200_000, "q")
    yield "field many times.apkg", lambda: templates("{{F0}}" * 10_000, "x" * MANY)
    yield "many templates.apkg", lambda: templates("{{F0}}", "x", 1, 5000)
    yield "nested sections.apkg", lambda: templates("{{#F0}}" * 12_000 + "{{F0}}", "x")
    yield "rules.apkg", lambda: templates("{{F0}}", "q" + "<hr id=answer" * 20_000)
    gaps = "".join(f"{{{{c{n}::x}}}}" for n in range(1, 500)) + "y" * MANY
    yield "gaps.apkg", lambda: package(NOTES, rows=[(1, gaps)])
    yield "nested gaps.apkg", lambda: package(NOTES, rows=[(1, "{{c1::" * (MANY // 6))])
    yield (
        "deep json.apkg",
        lambda: package(NOTES + COL + f"INSERT INTO col VALUES ('{'[' * 90_000}', '');", rows=[(1, "q")]),
    )
    yield "long number in json.apkg", lambda: package(NOTES + COL + f"INSERT INTO col VALUES ('{'9' * 20_000}', '');")
    yield (
        "list for object.apkg",
        lambda: package(NOTES + COL + "INSERT INTO col VALUES ('[1]', '[2]');", rows=[(1, "q\x1fa")]),
    )


def texts(length: int) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """HTML in GIFT, and the other formats of text."""
    for name, piece in {
        "pre": "<pre>", "comments": "<!--", "declarations": "<!x", "cdata": "<![CDATA[", "instructions": "<?", "tags": "<a b",
        "quotes": "<a x=\\\"<", "mixed quotes": "<a \\\"<b '", "ends": "</", "references": "&#", "divs": "<div>", "emphasis": "<b><i>",
        "lists": "<ul><li>", "brackets": "[", "links": "[a](", "dollars": "$ ", "latex": "[latex]", "parentheses": "\\\\(",
        "sound": "[sound:", "speech": "[anki:tts", "pictures": "![", "scripts": "<script></", "tables": "<table><tr><td>",
        "details": "<details class=hint><summary>", "marks": "*_", "rows": "a<br>",
    }.items():  # fmt: skip
        yield f"{name}.gift", html(piece * (length // len(piece)))
    yield "spaces in code.gift", html(f"<code>{' ' * MANY}x</code>")
    yield "spaces in a cell.gift", html(f"<table><tr><td><pre>{' ' * MANY}x</pre></td></tr></table>")
    yield "long reference.gift", html("&#" + "9" * 20_000 + ";")
    yield "ids.gift", lambda: b"// " + b"[id:" * (MANY // 4) + b"\n::t:: x {}"
    yield "long weight.gift", lambda: b"::t:: x {~%" + b"9" * 20_000 + b"%a =b}"
    yield "header.txt", lambda: b"#a" + b" " * MANY + b"\na\tb\n"
    yield "column.txt", lambda: b"#tags column:" + b"9" * 20_000 + b"\na\tb\n"
    yield "quotes.txt", lambda: b'"a\tb\n' * (length // 5)
    yield "large.txt", lambda: b"a\tb\n" * (6 << 20)
    yield "entities.xml", lambda: b'<!DOCTYPE q [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><quiz>&b;</quiz>'
    hidden = '<!DOCTYPE q [<!ENTITY a "aaaa">]><quiz>&a;</quiz>'.encode("cp037").decode("latin-1")
    yield "another encoding.xml", lambda: f'<?xml version="1.0" encoding="cp037"?>{hidden}'.encode()
    yield "deep.xml", lambda: b"<quiz>" + b"<a>" * 100_000
    yield "wide.xml", lambda: b"<quiz>" + b"<a/>" * 600_000 + b"</quiz>"
    answers = "<answer><text>x</text></answer>" * (length // 5)
    last = "<questiontext format='html'><text>q</text></questiontext>"
    yield "question last.xml", lambda: f"<quiz><question type='shortanswer'>{answers}{last}</question></quiz>".encode()
    yield "not a number.xml", lambda: MULTIPLE.encode()
    yield "arrays.toml", lambda: b"a = " + b"[" * 100_000
    yield "tables.toml", lambda: b"a = " + b"{a=" * 100_000
    yield "dotted.toml", lambda: b"a" + b".a" * 100_000 + b" = 1"
    yield "number.toml", lambda: b"a = " + b"9" * 20_000
    yield "strings.toml", lambda: b"a = " + b'\\"""' * 60_000
    yield (
        "types.toml",
        lambda: b"[[questions]]\ntype = ['x']\n[[questions]]\ntype = 'MultipleChoice'\nprompt.distractors = 3\n",
    )
    same = b"".join(b"The same title, every time\tb\n" for _ in range(3000))
    yield "one title.txt", lambda: same


def stop(*_: object) -> None:
    raise TimeoutError(f"took more than {SECONDS} s of the processor")


def main(which: str = "") -> None:
    """Import each in a folder of its own."""
    every = which == "all"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGXCPU, stop)
    for name, make in [*packages(), *texts(MANY if every else FEWER)]:
        if name in LONG and not every:
            continue
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / name
            place.write_bytes(make())
            made = Calls()
            used = resource.getrusage(resource.RUSAGE_SELF)
            most = int(used.ru_utime + used.ru_stime) + SECONDS
            resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
            try:
                with made:
                    drafts = read(place)
                    write(drafts, Path(folder), "topic")
                said = f"imported: {len(drafts)}"
            except PackError as error:
                said = f"refused: {error}"
            except Exception as error:  # noqa: BLE001 — what the test looks for
                said = f"raised: {type(error).__name__}: {error}"
            size = place.stat().st_size
        print(name, made.count, size, " ".join(said[:300].split()), sep="\t", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
