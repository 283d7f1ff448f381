"""Prove a topic's pages: their programs must run, their figures must be safe, and two runs must agree."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from clearhead import sandbox
from clearhead.course.pack.item import Pack, Page
from clearhead.course.pack.page_programs import PageProgram, page_programs
from clearhead.course.proofs.figure import TAKE_SVG, unsafe
from clearhead.course.proofs.prove import versions
from clearhead.errors import ProofError
from clearhead.sandbox import Chunk, Limits, Outcome, Program

_LIMIT = 60.0  # seconds for all programs of one page
END = "\x1e"  # ASCII's record separator, between two outputs
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
        pass  # another page may be the cause: run this page alone below, and return that error
    try:
        return prove_page(page, pack)
    except ProofError as error:
        return error


def prove_page(page: Page, pack: Pack) -> int:
    """Run the programs of a page one after another in one namespace, twice; figures once per slider value.

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


def _chunks(page: Page) -> list[Chunk]:
    return page_chunks(page_programs(page), page.file)


def page_chunks(programs: Sequence[PageProgram], file: str) -> list[Chunk]:
    """Return the chunks that the sandbox runs. They print END after each output; a figure's output is its SVG."""
    chunks: list[Chunk] = []
    for program in programs:
        if not program.draws:
            chunks += [Chunk(program.source, file, program.line), Chunk(f"print(end={END!r})", "end")]
            continue
        for value in program.values or ("",):
            setting = f"{program.over} = {value}\n" if program.over else ""
            chunks += [
                Chunk(f'globals().pop("svg", None)\n{setting}', "slider"), Chunk(program.source, file, program.line),
                TAKE_SVG, Chunk(f"print(svg, end={END!r})", "end"),
            ]  # fmt: skip
    return chunks


def _agreed(page: Page, runs: Sequence[Outcome]) -> int:
    """Return how many programs the page has, if both runs succeed and print the same."""
    programs = page_programs(page)
    printed_by = [program for program in programs for _ in range(program.outputs)]
    for run in runs:
        if run.raised:
            problem = f"the program raises {run.raised.type}: {run.raised.message}"
            raise ProofError(problem, file=page.file, line=run.raised.line or programs[0].line)
        if run.stopped:
            raise ProofError(f"the page's programs were stopped: {run.stopped}", file=page.file, line=programs[0].line)
        if run.stdout.count(END) < len(printed_by):
            problem = f"the page's programs ended early, with exit status {run.exit_code}"
            raise ProofError(problem, file=page.file, line=printed_by[run.stdout.count(END)].line)
    outputs = [run.stdout.split(END) for run in runs]
    for program, first, second in zip(printed_by, *outputs, strict=False):
        if program.draws and (why := _not_a_picture(first)):
            raise ProofError(f"the figure {why}", file=page.file, line=program.line)
        if first != second and not program.varies:
            problem = "two runs print different things: seed what is random, or mark it `python run varies`"
            raise ProofError(problem, file=page.file, line=program.line)
    return len(programs)


def _not_a_picture(svg: str) -> str:
    """Return why this output cannot be shown as a picture; "" if it can."""
    return unsafe(svg) if svg else "draws nothing; set `svg`, or leave a matplotlib figure open"


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
