"""Record what a program did in its tests, and what the solution did: inputs of failed tests, and attention maps.

The record is never graded, because a program can forge it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from clearhead import sandbox
from clearhead.course.pack.item import Item
from clearhead.course.proofs.proved import Proved
from clearhead.course.proofs.runner import setup_chunks
from clearhead.sandbox import Chunk, Limits

Rows = Sequence[Sequence[float]]
_SEEN = 0.005  # two numbers of a map that differ by less look the same when printed
_MOST_PRINTED = 4_000  # characters of what a program printed
_RECORD = "from clearhead.sandbox.child.recording import recorded as __recorded\n"


class _Grid(BaseModel):
    """A matrix of a call, and whether it holds weights or a mask."""

    rows: Annotated[list[Annotated[list[FiniteFloat], Field(min_length=1)]], Field(min_length=1)]
    weights: bool


class _Call(BaseModel):
    """One call: of what, with which arguments as text, and the matrices that it gave."""

    name: str
    args: dict[str, str]
    grids: list[_Grid]


class _Test(BaseModel):
    """What one test called."""

    failed: bool
    calls: list[_Call] = []


_TESTS = TypeAdapter(dict[str, _Test])


@dataclass(frozen=True, slots=True)
class Recorded:
    """The calls of a program in its tests.

    Attributes:
        inputs: failing test -> its last call, as text.
        right, yours: attention weights (or a mask) of one call, from the solution and from the program. `yours` is None
            if the program returned none, both are None if the solution returns none.
        call: what was called.
        printed: what the program printed in its tests.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    right: Rows | None = None
    yours: Rows | None = None
    call: str = ""
    printed: str = ""


def recorded(item: Item, proved: Proved, program: str, preload: Sequence[str], owner: str) -> Recorded:
    """Run the item's tests on the program and on the solution, confined.

    Of all calls that give weights, the first whose maps differ is shown; the first of all if every test passed.

    Raises:
        SandboxError: this machine cannot confine programs.
    """
    mine, printed = _calls(item, proved.receipt.seed, program, preload, owner)
    inputs = {title: _text(test.calls[-1]) for title, test in mine.items() if test.failed and test.calls}
    passed = bool(mine) and not any(test.failed for test in mine.values())
    solution = _calls(item, proved.receipt.seed, proved.solution, preload, owner)[0] if proved.solution else {}
    for title, test in solution.items():
        for place, call in enumerate(test.calls):
            grid = next((at for at, tensor in enumerate(call.grids) if tensor.weights), None)
            if grid is None:
                continue
            right = call.grids[grid].rows
            yours = _beside(mine[title].calls[place : place + 1] if title in mine else [], grid, right)
            if passed or _differ(yours, right):
                return Recorded(inputs, right, yours, call.name, printed)
    return Recorded(inputs, printed=printed)


def _differ(yours: Rows | None, right: Rows) -> bool:
    """Return whether a reader can tell the two maps apart."""
    if yours is None:
        return True
    pairs = zip((x for row in yours for x in row), (x for row in right for x in row), strict=True)
    return not all(abs(a - b) < _SEEN for a, b in pairs)


def _beside(calls: Sequence[_Call], place: int, right: Rows) -> Rows | None:
    """Return the map of the program's call at the same place as the solution's, or one of the same shape."""
    grids = calls[0].grids if calls else []
    shape = [len(row) for row in right]
    shaped = (grid.rows for grid in (*grids[place : place + 1], *grids) if [len(row) for row in grid.rows] == shape)
    return next(shaped, None)


def _calls(item: Item, seed: int, program: str, preload: Sequence[str], owner: str) -> tuple[dict[str, _Test], str]:
    """Return what each test recorded, and what the program printed. A record that is cut off or forged is empty."""
    tests = item.role("tests")[0]
    record = f"{_RECORD}__calls = __recorded({tests.source!r}, {item.file!r}, dict(globals()))\n"
    chunks = [*setup_chunks(item, seed), Chunk(program, "your program"), Chunk(record, "record")]
    limits = Limits(seconds=item.run_limit)
    run = sandbox.run(chunks, limits=limits, preload=preload, want=[("__calls", "")], owner=owner)
    printed = run.stdout.rstrip()[:_MOST_PRINTED]
    try:
        return _TESTS.validate_json(run.values.get("__calls", "{}")), printed
    except ValidationError:
        return {}, printed


def _text(call: _Call) -> str:
    given = [f"{name} = {value}" for name, value in call.args.items()]
    return "\n".join([f"{call.name}({', '.join(call.args)})", *given])
