"""A topic's page with the real output under each of its programs.

The programs of a page share one namespace and run once, confined. What a `python run` printed is set below it; a
`python figure` becomes a block `frames`, which holds its pictures and is drawn by `text/page_figure.py`.
"""

import contextlib
import hashlib
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from clearhead import sandbox
from clearhead.course import Pack, Page
from clearhead.course.pack.page_programs import PageProgram, page_programs
from clearhead.course.proofs.pages import END, page_chunks
from clearhead.errors import SandboxError
from clearhead.studio.text import formatting

FENCE: Final = re.compile(r"^```python (?:run|figure)\b[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
LIMITS: Final = sandbox.Limits(seconds=60)


def with_outputs(page: Page, pack: Pack, cache: Path) -> str:
    """Return the page's Markdown, each program followed by its output, or by why it could not run.

    Args:
        cache: a folder with the outputs of earlier starts; used if page and versions are the same.
    """
    programs = page_programs(page)
    if not programs:
        return page.text
    place = cache / "pages" / f"{_key(page, pack)}.json"
    outputs = _kept(place, sum(program.outputs for program in programs))
    if outputs is None:
        outputs = _run(programs, page, pack)
        with contextlib.suppress(OSError):  # it is run again at the next start
            place.parent.mkdir(parents=True, exist_ok=True)
            half = place.with_suffix(".half")
            half.write_text(json.dumps(outputs), encoding="utf-8")
            half.replace(place)
    left, each = iter(outputs), iter(programs)

    def shown(block: re.Match[str]) -> str:
        program = next(each)
        printed = [next(left) for _ in range(program.outputs)]
        if program.draws:
            return _frames(program, printed)
        below = f"\n\n~~~output\n{printed[0].rstrip()}\n~~~" if printed[0].strip() else ""
        return f"```python\n{block[1]}```{below}"

    return FENCE.sub(shown, page.text)


def _frames(program: PageProgram, pictures: list[str]) -> str:
    """The block that a figure becomes: all of its pictures, and the program that drew them."""
    block = {
        "label": program.label, "values": list(program.values), "start": program.start, "frames": pictures,
        "source": program.source,
    }  # fmt: skip
    return f"```frames\n{json.dumps(block)}\n```"


def _kept(place: Path, count: int) -> list[str] | None:
    """Return the outputs kept at `place`; None if there are none or the file is damaged."""
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(kept, list) and len(kept) == count and all(isinstance(output, str) for output in kept)
    return kept if whole else None


def _run(programs: list[PageProgram], page: Page, pack: Pack) -> list[str]:
    count = sum(program.outputs for program in programs)
    try:
        outcome = sandbox.run(page_chunks(programs, page.file), limits=LIMITS, preload=pack.preload)
    except SandboxError as problem:
        return [f"(not run: {problem})", *[""] * (count - 1)]
    outputs = outcome.stdout.split(END)[:count]
    if outcome.stopped:
        # In English: outputs are kept for every learner, in whatever language.
        why = formatting.STOPPED[outcome.stopped] % {"seconds": f"{LIMITS.seconds:g}"}
        outputs[-1] += f"(stopped: {why})"
    elif outcome.raised:
        outputs[-1] += f"{outcome.raised.type}: {outcome.raised.message}"
    return outputs + [""] * (count - len(outputs))


def _key(page: Page, pack: Pack) -> str:
    """Return a hash of everything that can change an output."""
    parts = [page.text]
    for name in ("clearhead", *pack.preload):
        try:
            parts.append(f"{name}={version(name)}")
        except PackageNotFoundError:
            parts.append(name)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
