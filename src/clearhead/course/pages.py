"""The programs of a topic's pages: they must run, and two runs must agree."""

import hashlib
import json
from pathlib import Path

from clearhead import sandbox
from clearhead.course.blocks import fences
from clearhead.course.item import Pack, Page
from clearhead.course.prove import versions
from clearhead.errors import ProofError
from clearhead.sandbox import Chunk, Limits

_LIMITS = Limits(seconds=60)
_END = "\x1e"  # ASCII's record separator, between the outputs of two programs


def prove_page(page: Page, pack: Pack) -> int:
    """Run the `python run` programs of a page, one after another in one namespace, twice.

    A program marked `python run varies` (it prints timings, say) may print something else each time.

    Returns:
        How many there are.
    Raises:
        ProofError: one raises, is stopped, or prints something else the second time; at its line.
    """
    found = [(info.split(), source, line) for info, source, line in fences(page.text, page.file)]
    programs = [(words, source, line) for words, source, line in found if words[:2] == ["python", "run"]]
    if not programs:
        return 0
    chunks = []
    for _, source, line in programs:
        chunks += [Chunk(source, page.file, line), Chunk(f"print(end={_END!r})", "end")]
    outputs = []
    for salt in (1, 2):
        run = sandbox.run(chunks, limits=_LIMITS, preload=pack.preload, salt=salt)
        outputs.append(run.stdout.split(_END))
        if run.raised:
            said = f"the program raises {run.raised.type}: {run.raised.message}"
            raise ProofError(said, file=page.file, line=run.raised.line or programs[0][2])
        if run.stopped:
            raise ProofError(f"the page's programs were stopped: {run.stopped}", file=page.file, line=programs[0][2])
    for (words, _, line), one, two in zip(programs, *outputs, strict=False):
        if one != two and "varies" not in words:
            said = "two runs print different things: seed what is random, or mark it `python run varies`"
            raise ProofError(said, file=page.file, line=line)
    return len(programs)


def page_key(page: Page, pack: Pack) -> str:
    """Of everything that can change what the page's programs print."""
    parts = [page.text, *(f"{name}={found}" for name, found in versions(pack.preload).items())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def kept_pages(place: Path | None) -> dict[str, str]:
    """File -> key of the pages that were proved before. A damaged file counts as none."""
    try:
        data = json.loads(place.read_text(encoding="utf-8")) if place else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
