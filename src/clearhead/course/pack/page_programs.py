"""Programs of a page: `python run` and `python try` show their output, `python figure` draws.

The reader can edit a `try`, or the program of a figure, and run it in place.

A figure may have a slider: ```` ```python figure over=lead at=0,1,2,4 start=1 label="Lead of the first key" ````. Its
program then runs once for each of these values, and the reader moves between the pictures. `names="soft,sharp"` names
the values.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from clearhead.course.pack.blocks import fences
from clearhead.course.pack.item import Page
from clearhead.errors import PackError

MOST_FRAMES = 12  # pictures of one figure
_KEYS = ("over", "at", "start", "label", "names")


@dataclass(frozen=True, slots=True)
class PageProgram:
    """One program of a page.

    Attributes:
        line: file line (1-based) of the first line of `source`.
        draws: whether it is a figure: it sets `svg`, or leaves a matplotlib figure open.
        varies: its output may differ from run to run (timings).
        edits: the reader can change it and run it again.
        over: the variable that the slider of a figure sets; "" if it has none.
        values: what `over` is set to, as the author wrote it, one picture each.
        names: what the slider says at each value; () for the values themselves.
        start: index of the value shown first, from 0. label: the label of the slider.
    """

    source: str
    line: int
    draws: bool = False
    varies: bool = False
    over: str = ""
    values: Sequence[str] = ()
    names: Sequence[str] = ()
    start: int = 0
    label: str = ""
    edits: bool = False

    @property
    def outputs(self) -> int:
        """How many outputs it has: one, or one picture for each value of its slider."""
        return max(1, len(self.values))


def page_programs(page: Page) -> list[PageProgram]:
    """Return the programs of the page, in order.

    Raises:
        PackError: a figure's slider is malformed; at the line of its fence.
    """
    programs = []
    for info, source, line in fences(page.text, page.file):
        words = info.split()
        if words[:2] in (["python", "run"], ["python", "try"]):
            edits = words[1] == "try"
            programs.append(PageProgram(source, line, varies="varies" in words, edits=edits))
        elif words[:2] == ["python", "figure"]:
            programs.append(_figure(info, source, line, page.file))
    return programs


def _figure(info: str, source: str, line: int, file: str) -> PageProgram:
    def wrong(problem: str) -> PackError:
        return PackError(problem, file=file, line=line - 1)

    try:
        words = shlex.split(info)[2:]
    except ValueError as error:
        raise wrong(f"cannot read the info string: {error}") from None
    keys = dict(word.partition("=")[::2] for word in words)
    unknown = next((key for key in keys if key not in _KEYS), None)
    if unknown is not None:
        raise wrong(f"a figure has no {unknown[:40]!r}; it may have {', '.join(_KEYS)}")
    if ("over" in keys) != ("at" in keys):
        raise wrong("a figure with a slider has both over=NAME and at=VALUE,VALUE")
    if "names" in keys and "over" not in keys:
        raise wrong("names=… says what a slider shows; give it over=NAME and at=VALUE,VALUE too")
    if "over" not in keys:
        return PageProgram(source, line, draws=True, label=keys.get("label", ""), edits=True)
    over, values = keys["over"], keys["at"].split(",")
    if not over.isidentifier():
        raise wrong(f"over={over[:40]} is not a name that a program can use")
    if not 2 <= len(values) <= MOST_FRAMES or not all(map(_is_number, values)):
        raise wrong(f"at={keys['at'][:60]} needs 2 to {MOST_FRAMES} numbers with commas between them")
    start = keys.get("start", "0")
    if not start.isdigit() or int(start) >= len(values):
        raise wrong(f"start={start[:40]} is not the place of a value, 0 to {len(values) - 1}")
    names = tuple(name.strip() for name in keys["names"].split(",")) if "names" in keys else ()
    if names and (len(names) != len(values) or not all(names)):
        raise wrong(f"names={keys['names'][:60]} needs one name for each of the {len(values)} values of at=")
    return PageProgram(
        source, line, draws=True, over=over, values=tuple(values), names=names, start=int(start),
        label=keys.get("label", over), edits=True,
    )  # fmt: skip


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
