"""Several programs one after another in one confined process: a process each costs ten times what most programs do.

What one program leaves behind the next may see, beyond what `fresh` sets back. So a batch is for programs of one author
alone, run twice in opposite orders, and what differs is run again, a process each. A batch that replaced something of
Python's or torch's own counts as not run.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clearhead.sandbox.child import judging, reset, wire
from clearhead.sandbox.child.execution import CHANNEL, run_chunks
from clearhead.sandbox.limits import Outcome, Raised, Tested, no_memory

Programs = Sequence[Mapping[str, Any]]
Reports = Sequence[Mapping[str, Any]]


def run(programs: Programs, mark: str, salt: int) -> dict[str, Any]:
    """In the child: run each in a namespace of its own; print the mark after each, on both streams."""
    reports, before, shuffle = [], reset.shared(), reset.shuffle(salt)
    for program in programs:
        _anew(shuffle)
        reports.append(run_chunks(program["chunks"], program["want"]))
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.write(descriptor, mark.encode())
    return {"each": [] if reset.altered(before) else reports}


def serve(programs: Programs, salt: int) -> dict[str, Any]:
    """In one child: each program answers its tests, until they ask for the next."""
    reports, before, shuffle = [], reset.shared(), reset.shuffle(salt)
    for program in programs:
        _anew(shuffle)
        reports.append(judging.serve(program["chunks"]))
    return {"each": [] if reset.altered(before) else reports}


def examine(tests: Programs, salt: int) -> dict[str, Any]:
    """In the other child: the tests of each program in turn."""
    reports, before, shuffle = [], reset.shared(), reset.shuffle(salt)
    for test in tests:
        _anew(shuffle)
        reports.append(judging.examine(test["chunks"]))
        wire.send(CHANNEL, {"op": judging.NEXT})
    return {"each": [] if reset.altered(before) else reports}


def _anew(shuffle: Callable[[], None]) -> None:
    reset.streams()
    shuffle()
    reset.settings()


def outcomes(whole: Outcome, each: Reports, mark: str, count: int) -> list[Outcome] | None:
    """Return an outcome for each program; None if the batch did not finish."""
    out, err = whole.stdout.split(mark), whole.stderr.split(mark)
    if whole.stopped or whole.exit_code or not len(each) == len(out) - 1 == len(err) - 1 == count:
        return None
    results = []
    for at, report in enumerate(each):
        raised = _raised(report)
        if raised and no_memory(raised):
            return None
        code, seconds = int(raised is not None), whole.seconds / count
        results.append(Outcome(out[at], err[at], code, None, seconds, raised, report["values"]))
    return results


def verdicts(
    sides: Sequence[Outcome], served: Reports, examined: Reports, count: int
) -> list[tuple[Tested, ...]] | None:
    """Return the test results of each program; None if a side failed or its report is malformed."""
    if any(side.stopped or side.exit_code for side in sides) or not len(served) == len(examined) == count:
        return None
    if any(raised and no_memory(raised) for raised in map(_raised, served)):
        return None
    results = [tuple(Tested(*error) for error in report["tests"]) for report in examined]
    errors = [Raised(test.message.partition(":")[0], test.message) for tests in results for test in tests]
    disturbed = (no_memory(error) or error.type in ("MemoryError", "WireError") for error in errors)
    return None if any(disturbed) else results


def _raised(report: Mapping[str, Any]) -> Raised | None:
    raised = report["raised"]
    return Raised(**{**raised, "kinds": tuple(raised["kinds"])}) if raised else None
