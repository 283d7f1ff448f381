"""The programs of a topic's pages: they must run, and two runs must agree."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from clearhead import sandbox
from clearhead.course.pack.blocks import fences
from clearhead.course.pack.item import Pack, Page
from clearhead.course.proofs.prove import versions
from clearhead.errors import ProofError
from clearhead.sandbox import Chunk, Limits, Outcome, Program

_LIMIT = 60.0  # seconds that the programs of one page may take
_END = "\x1e"  # ASCII's record separator, between the outputs of two programs
_SALTS = (1, 2)


def prove_pages(pages: Sequence[Page], pack: Pack) -> list[int | ProofError]:
    """Prove several pages as `prove_page` does, in one process, and in the opposite order in a second one.

    If the two disagree, or a page ends the process or disturbs others, each page runs alone.

    Returns:
        For each page the number of its programs, or its error.
    """
    plans = [Program(tuple(_chunks(page))) for page in pages]
    if not any(plan.chunks for plan in plans):
        return [0] * len(pages)
    limits = Limits(seconds=_LIMIT * len(pages))
    runs: list[Sequence[Outcome | None]] = []
    for salt, order in zip(_SALTS, (plans, plans[::-1]), strict=True):
        outcomes = sandbox.run_each(order, limits=limits, time_each=_LIMIT, preload=pack.preload, salt=salt)
        runs.append(outcomes or [None] * len(pages))
    return [
        _proved(page, pack, first, second)
        for page, first, second in zip(pages, runs[0], reversed(runs[1]), strict=True)
    ]


def _proved(page: Page, pack: Pack, first: Outcome | None, second: Outcome | None) -> int | ProofError:
    try:
        if first and second:
            return _agreed(page, (first, second))
    except ProofError:
        pass  # run alone it may hold, and if not it says so once more
    try:
        return prove_page(page, pack)
    except ProofError as error:
        return error


def prove_page(page: Page, pack: Pack) -> int:
    """Run the `python run` programs of a page, one after another in one namespace, twice.

    A program marked `python run varies`, such as one that prints timings, may print something else each time.

    Returns:
        The number of programs.
    Raises:
        ProofError: one raises, is stopped, or prints something else the second time; at its line.
    """
    chunks, limits = _chunks(page), Limits(seconds=_LIMIT)
    if not chunks:
        return 0
    return _agreed(page, [sandbox.run(chunks, limits=limits, preload=pack.preload, salt=salt) for salt in _SALTS])


def _programs(page: Page) -> list[tuple[list[str], str, int]]:
    """(words of the fence, source, line) of each program that is run."""
    blocks = [(info.split(), source, line) for info, source, line in fences(page.text, page.file)]
    return [block for block in blocks if block[0][:2] == ["python", "run"]]


def _chunks(page: Page) -> list[Chunk]:
    end = Chunk(f"print(end={_END!r})", "end")
    return [chunk for _, source, line in _programs(page) for chunk in (Chunk(source, page.file, line), end)]


def _agreed(page: Page, runs: Sequence[Outcome]) -> int:
    """Return the number of programs of the page; raise if a run failed or the two runs print different things."""
    programs = _programs(page)
    for run in runs:
        if run.raised:
            problem = f"the program raises {run.raised.type}: {run.raised.message}"
            raise ProofError(problem, file=page.file, line=run.raised.line or programs[0][2])
        if run.stopped:
            raise ProofError(f"the page's programs were stopped: {run.stopped}", file=page.file, line=programs[0][2])
        if run.stdout.count(_END) < len(programs):
            problem = f"the page's programs ended early, with exit status {run.exit_code}"
            raise ProofError(problem, file=page.file, line=programs[run.stdout.count(_END)][2])
    outputs = [run.stdout.split(_END) for run in runs]
    for (words, _, line), output, other in zip(programs, *outputs, strict=False):
        if output != other and "varies" not in words:
            problem = "two runs print different things: seed what is random, or mark it `python run varies`"
            raise ProofError(problem, file=page.file, line=line)
    return len(programs)


def page_key(page: Page, pack: Pack) -> str:
    """Return the hash of everything that can change what the page's programs print."""
    parts = [page.text, *(f"{name}={version}" for name, version in versions(pack.preload).items())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def kept_pages(place: Path | None) -> dict[str, str]:
    """Return file -> key of the pages that were proved before. A damaged file counts as empty."""
    try:
        data = json.loads(place.read_text(encoding="utf-8")) if place else {}
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
