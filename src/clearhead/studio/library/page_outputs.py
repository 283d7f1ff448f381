"""A topic's page with the real output under each of its programs.

The programs of a page (`python run`) share one namespace and run once, confined; the output of each is placed below it.
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
from clearhead.errors import SandboxError
from clearhead.studio.text import formatting

RUN: Final = re.compile(r"^```python run[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
END: Final = "\x1e"  # ASCII's record separator: what a program prints does not hold it
LIMITS: Final = sandbox.Limits(seconds=60)


def with_outputs(page: Page, pack: Pack, cache: Path) -> str:
    """Return the page's Markdown, each program followed by its output, or by why it could not run.

    Args:
        cache: a folder with the outputs of earlier starts; used if page and versions are the same.
    """
    programs = RUN.findall(page.text)
    if not programs:
        return page.text
    place = cache / "pages" / f"{_key(page, pack)}.json"
    outputs = _kept(place, len(programs))
    if outputs is None:
        outputs = _run(programs, page, pack)
        with contextlib.suppress(OSError):  # it is run again at the next start
            place.parent.mkdir(parents=True, exist_ok=True)
            half = place.with_suffix(".half")
            half.write_text(json.dumps(outputs), encoding="utf-8")
            half.replace(place)
    left = iter(outputs)

    def shown(block: re.Match[str]) -> str:
        output = next(left)
        below = f"\n\n~~~output\n{output.rstrip()}\n~~~" if output.strip() else ""
        return f"```python\n{block[1]}```{below}"

    return RUN.sub(shown, page.text)


def _kept(place: Path, count: int) -> list[str] | None:
    """Return the outputs kept at `place`; None if there are none or the file is damaged."""
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(kept, list) and len(kept) == count and all(isinstance(output, str) for output in kept)
    return kept if whole else None


def _run(programs: list[str], page: Page, pack: Pack) -> list[str]:
    chunks = []
    for program in programs:
        chunks += [sandbox.Chunk(program, page.file), sandbox.Chunk(f"print(end={END!r})", "end")]
    try:
        outcome = sandbox.run(chunks, limits=LIMITS, preload=pack.preload)
    except SandboxError as problem:
        return [f"(not run: {problem})", *[""] * (len(programs) - 1)]
    outputs = outcome.stdout.split(END)[: len(programs)]
    if outcome.stopped:
        # In English: outputs are kept for every learner, in whatever language.
        why = formatting.STOPPED[outcome.stopped] % {"seconds": f"{LIMITS.seconds:g}"}
        outputs[-1] += f"(stopped: {why})"
    elif outcome.raised:
        outputs[-1] += f"{outcome.raised.type}: {outcome.raised.message}"
    return outputs + [""] * (len(programs) - len(outputs))


def _key(page: Page, pack: Pack) -> str:
    """Return a hash of everything that can change an output."""
    parts = [page.text]
    for name in ("clearhead", *pack.preload):
        try:
            parts.append(f"{name}={version(name)}")
        except PackageNotFoundError:
            parts.append(name)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
