"""Render a topic's page with the real output under each of its programs.

The programs of a page share one namespace and run once, confined. The output of a `python run` is placed below it; a
long program is folded. A `python try` becomes a block `live`, with its output, and a `python figure` a block `frames`,
with its pictures; `text/live_program.py` and `text/page_figure.py` turn these into elements. `rerun` runs a program as
the reader edited it.
"""

import contextlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from clearhead import sandbox
from clearhead.course import Pack, Page
from clearhead.course.pack.page_programs import PageProgram, page_programs
from clearhead.course.proofs.pages import END, page_chunks, page_key
from clearhead.errors import OptionError, SandboxError
from clearhead.files import whole_file
from clearhead.studio.text import formatting
from clearhead.studio.text.translation import _

FENCE: Final = re.compile(r"^```python (?:run|figure|try)\b[^\n]*\n(.*?)^```[ \t]*$", re.DOTALL | re.MULTILINE)
LIMITS: Final = sandbox.Limits(seconds=60)
LONGEST_OPEN: Final = 20  # lines; a longer program is folded
YOURS: Final = "your program"  # the file that an error of an edited program names


def with_outputs(page: Page, pack: Pack, cache: Path) -> str:
    """Return the page's Markdown, with each program followed by its output, or by the reason why it could not run.

    Args:
        cache: a folder with the outputs of earlier starts; used if page and versions are the same.
    """
    programs = page_programs(page)
    if not programs:
        return page.text
    place = cache / "pages" / f"{page_key(page, pack)[:32]}.json"
    outputs = _kept(place, sum(program.outputs for program in programs))
    if outputs is None:
        outputs, stopped = _run(programs, page, pack)
        if not stopped:  # an output that a busy machine cut short is computed again at the next start
            _keep(outputs, place)
    left, each = iter(outputs), iter(enumerate(programs))

    def shown(block: re.Match[str]) -> str:
        place, program = next(each)
        printed = [next(left) for _ in range(program.outputs)]
        if program.draws and all("<svg" in picture for picture in printed):
            return f"```frames\n{frames(program, printed, place)}\n```"
        if program.edits:
            block_of = {"place": place, "source": program.source, "output": printed[0].rstrip()}
            return f"```live\n{json.dumps(block_of)}\n```"
        if program.draws:  # it did not finish, so show the reason instead of incomplete pictures
            printed = [text for text in printed if text.strip() and "<svg" not in text][:1] or [""]
        below = f"\n\n~~~output\n{printed[0].rstrip()}\n~~~" if printed[0].strip() else ""
        folded = " folded" if below and len(block[1].splitlines()) > LONGEST_OPEN else ""
        return f"```python{folded}\n{block[1]}```{below}"

    return FENCE.sub(shown, page.text)


def frames(program: PageProgram, pictures: list[str], place: int) -> str:
    """Return the JSON of a figure's block: all of its pictures, and the program that drew them."""
    block = {
        "label": program.label, "values": list(program.names or program.values), "start": program.start,
        "frames": pictures, "source": program.source, "place": place,
    }  # fmt: skip
    return json.dumps(block)


@dataclass(frozen=True)
class Rerun:
    """The outcome of a page's program as the reader edited it.

    Attributes:
        outputs: what it printed, or its pictures; fewer if it did not finish.
        problem: why it did not finish; "" if it did.
    """

    program: PageProgram
    outputs: list[str]
    problem: str = ""


def rerun(page: Page, pack: Pack, place: int, source: str, limits: sandbox.Limits, owner: str) -> Rerun:
    """Run the program at this place of the page with another source, after the unchanged programs before it.

    Raises:
        SandboxError: this machine cannot confine programs.
        IndexError: the page has no such program.
    """
    programs = page_programs(page)
    program = programs[place]
    # An earlier figure may set names that this program uses; one of its pictures is enough.
    before = [replace(earlier, values=earlier.values[earlier.start :][:1]) for earlier in programs[:place]]
    chunks = page_chunks(before, page.file) + page_chunks([replace(program, source=source, line=1)], YOURS)
    outcome = sandbox.run(chunks, limits=limits, preload=pack.preload, owner=owner)
    printed = outcome.stdout.split(END)[len(before) :]
    if not outcome.ok and program.draws:
        printed = []  # drop an incomplete picture
    return Rerun(program, printed[: program.outputs], _problem(outcome, limits))


def _problem(outcome: sandbox.Outcome, limits: sandbox.Limits) -> str:
    """Return why an edited program did not finish, with the line if it is its own; "" if it did."""
    problem = "" if outcome.ok else formatting.why_ended(outcome, limits) or _("It ended itself.")
    raised = outcome.raised
    return (
        _("Line %(line)s: %(problem)s", line=raised.line, problem=problem)
        if raised and raised.line and raised.file == YOURS
        else problem
    )


def _kept(place: Path, count: int) -> list[str] | None:
    """Return the outputs kept at `place`; None if there are none or the file is damaged."""
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    whole = isinstance(kept, list) and len(kept) == count and all(isinstance(output, str) for output in kept)
    return kept if whole else None


def _keep(outputs: list[str], place: Path) -> None:
    with contextlib.suppress(OSError, OptionError):  # it is run again at the next start
        place.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(place) as draft:
            draft.write_text(json.dumps(outputs), encoding="utf-8")


def _run(programs: list[PageProgram], page: Page, pack: Pack) -> tuple[list[str], bool]:
    """Return every output, and whether the run was stopped at a limit or could not start."""
    count = sum(program.outputs for program in programs)
    try:
        outcome = sandbox.run(page_chunks(programs, page.file), limits=LIMITS, preload=pack.preload)
    except SandboxError as problem:
        return [f"(not run: {problem})", *[""] * (count - 1)], True
    outputs = outcome.stdout.split(END)[:count]
    if outcome.stopped:
        # In English, because all learners share the stored outputs, whatever their language.
        why = formatting.STOPPED[outcome.stopped] % {"seconds": f"{LIMITS.seconds:g}"}
        outputs[-1] += f"(stopped: {why})"
    elif outcome.raised:
        outputs[-1] += f"{outcome.raised.type}: {outcome.raised.message}"
    return outputs + [""] * (count - len(outputs)), bool(outcome.stopped)
