"""Load hostile packs one after another, in a process whose memory is bounded.

Prints one line per pack: the name, the number of function calls, whether it was loaded, refused or raised, and the
message. A reader that does not end is stopped.
"""

import os
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from clearhead.course.pack.loader import load
from clearhead.course.proofs.figure import unsafe
from clearhead.errors import PackError
from growth import Calls

GOOD = Path(__file__).parents[2] / "packs" / "good"
MEMORY = 3 << 30  # bytes of address space
SECONDS = 60  # of the processor, for each: the costliest takes one
Make = Callable[[Path], object]
ITEM = "items/card-word.md"


def front(row: str) -> Make:
    """The row is put into the front matter, on line 2."""
    return lambda pack: edit(pack / ITEM, lambda text: text.replace("+++\n", f"+++\n{row}\n", 1))


def stem(text: str) -> Make:
    return lambda pack: edit(pack / ITEM, lambda old: old.replace("## Stem\n", f"## Stem\n\n{text}\n", 1))


def page(text: str) -> Make:
    return lambda pack: (next((pack / "topics").iterdir()) / "read.md").write_text(text)


def toml(row: str) -> Make:
    return lambda pack: edit(pack / "pack.toml", lambda text: f"{row}\n{text}")


def edit(place: Path, change: Callable[[str], str]) -> None:
    place.write_text(change(place.read_text()))


def replaced(name: str, make: Callable[[Path], object]) -> Make:
    def change(pack: Path) -> None:
        place = pack / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        make(place)

    return change


def large(place: Path) -> None:
    place.touch()
    os.truncate(place, 1_000_000)  # a hole, which takes no room on the disk


def cases() -> Iterator[tuple[str, Make]]:
    """Each changes a copy of the good pack."""
    yield "unchanged", lambda pack: None
    yield "arrays", front("x = " + "[" * 100_000 + "]" * 100_000)
    yield "tables", front("x = " + "{a=" * 100_000)
    yield "dotted key", front("x" + ".x" * 100_000 + " = 1")
    yield "short dotted key", front("x" + ".x" * 30 + " = 1")
    yield "nested tables", front("x = " + "{a=" * 9_000 + "1" + "}" * 9_000)
    yield "arrays on lines", front("x = " + "[\n" * 90_000)
    yield "dotted table", toml("[x" + ".x" * 100_000 + "]")
    yield "arrays of pack.toml", toml("x = " + "[" * 100_000)
    yield "long number", front("rev = " + "9" * 20_000)
    yield "long float", front("tolerance = 0." + "9" * 20_000)
    yield "long hex", front("rev = 0x" + "f" * 20_000)
    yield "long key", front("x" * 50_000 + " = 1")
    yield "spaces before a key", front(" " * 90_000 + "x")
    yield "long list", front("concepts = [" + '"a b",' * 10_000 + "]")
    yield "braces", stem("{{" * 200_000)
    yield "braces on lines", stem("{{\n" * 200_000)
    yield "places", stem("{{word}}\n" * 50_000)
    yield "spaces in a place", stem("{{word" + " " * 90_000)
    yield "spec of spaces", stem("{{word:" + " " * 90_000)
    yield "digits in the stem", stem("9" * 20_000)
    yield "brackets", stem("[" * 90_000)
    yield "links", stem("[a](" * 20_000)
    yield "pictures", stem("![" * 45_000)
    yield "pictures of nothing", stem("![](" * 20_000)
    yield "backticks", stem("`" * 90_000)
    yield "fence of backticks", stem("`" * 90_000 + "\n" + "`" * 90_000)
    yield "spaces after a fence", stem("```" + " " * 90_000 + "`")
    yield "heading of spaces", stem("## a" + " " * 90_000 + "b")
    yield "section", stem("## " + "x" * 90_000)
    yield "deep math", stem("$" + "x^{" * 900 + "}" * 900 + "$")
    yield "deepest math", stem("$" + "{" * 45_000 + "}" * 45_000 + "$")
    yield "deep delimiters", stem("$" + r"\left(" * 4_000 + r"\right)" * 4_000 + "$")
    yield "deep math of a page", page("one\n\n$" + "x^{" * 9_000 + "}" * 9_000 + "$")
    yield "dollars", stem("$" * 90_000)
    yield "quotes", stem(">" * 90_000)
    yield "long line", stem("x" * 100_001)
    yield "large file", stem("x\n" * 600_000)
    yield "brackets of a page", page("[" * 90_000 + "\n" + "![" * 45_000)
    yield "not UTF-8", lambda pack: (pack / ITEM).write_bytes(b"+++\n\n\xff")
    yield "pipe", replaced(ITEM, os.mkfifo)
    yield "pipe for pack.toml", replaced("pack.toml", os.mkfifo)
    yield "folder for an item", replaced(ITEM, Path.mkdir)
    yield "device", replaced(ITEM, lambda place: place.symlink_to("/dev/zero"))
    yield "link to itself", replaced(ITEM, lambda place: place.symlink_to(place))
    yield "link out", replaced(ITEM, lambda place: place.symlink_to(GOOD / ITEM))
    yield "items elsewhere", replaced("items", lambda place: place.symlink_to(GOOD / "items"))
    yield "items that lead back", replaced("items", lambda place: place.symlink_to(place.parent))
    yield "topics elsewhere", replaced("topics", lambda place: place.symlink_to(GOOD / "topics"))
    yield "large pack", lambda pack: [large(pack / "items" / f"x{n}.md") for n in range(11)]
    yield "many items", lambda pack: [(pack / "items" / f"x{n}.md").touch() for n in range(5001)]


def stop(*_: object) -> None:
    raise TimeoutError(f"took more than {SECONDS} s of the processor")


def limit() -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, resource.RLIM_INFINITY))


def svgs() -> Iterator[tuple[str, str]]:
    """Figures."""
    uses = "".join(f'<g id="a{n}"><use href="#a{n - 1}"/><use href="#a{n - 1}"/></g>' for n in range(1, 40))
    yield "svg: uses of uses", f'<g id="a0"><circle r="1"/></g>{uses}<use href="#a39"/>'
    paints = "".join(
        f'<pattern id="a{n}"><rect fill="url(#a{n - 1})"/><rect stroke="url(#a{n - 1})"/></pattern>'
        for n in range(1, 40)
    )
    yield "svg: patterns of patterns", paints
    yield "svg: a chain", "".join(f'<g id="a{n}"><use href="#a{n - 1}"/></g>' for n in range(1, 500))
    yield "svg: itself", '<g id="a"><use href="#a"/></g>'
    yield "svg: each other", '<g id="a"><use href="#b"/></g><g id="b"><use href="#a"/></g>'
    yield "svg: many", "<g/>" * 24_000
    yield "svg: deep", "<g>" * 12_000 + "</g>" * 12_000
    yield "svg: large", "x" * 200_000


def main() -> None:
    """Load each from a folder of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGXCPU, stop)
    signal.signal(signal.SIGALRM, stop)
    for name, make in cases():
        with tempfile.TemporaryDirectory() as folder:
            pack = Path(shutil.copytree(GOOD, Path(folder) / "pack"))
            make(pack)
            limit()
            signal.alarm(300)  # for a reader that waits at a pipe
            made = Calls()
            try:
                with made:
                    said = f"loaded: {load(pack).id}"
            except PackError as error:
                said = f"refused: {error}"
            except Exception as error:  # noqa: BLE001 — what the test looks for
                said = f"raised: {type(error).__name__}: {error}"
            signal.alarm(0)
        print(name, made.count, " ".join(said.split())[:2000], sep="\t", flush=True)
    for name, inner in svgs():
        limit()
        with Calls() as made:
            said = unsafe(f"<svg>{inner}</svg>")
        print(name, made.count, f"refused: {said or 'not'}", sep="\t", flush=True)


if __name__ == "__main__":
    sys.exit(main())
