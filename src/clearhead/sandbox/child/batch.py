"""Run several programs one after another in one confined process.

Starting a process costs ten times as much as running a typical program. `reset` restores global state between programs,
but a program may still see what an earlier one left behind. So a batch is only for programs of one author, and runs
twice in opposite orders; programs whose results differ run again, each in its own process. A batch in which a program
replaced something of Python or torch does not count.
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
    """In the child: run each program in its own namespace, and print the mark after each on both streams."""
    reports, before, shuffle = [], reset.shared(), reset.shuffle(salt)
    for program in programs:
        _anew(shuffle)
        reports.append(run_chunks(program["chunks"], program["want"]))
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.write(descriptor, mark.encode())
    return {"each": [] if reset.altered(before) else reports}


def serve(programs: Programs, salt: int) -> dict[str, Any]:
    """In one child: let each program answer its tests, until they ask for the next program."""
    reports, before, shuffle = [], reset.shared(), reset.shuffle(salt)
    for program in programs:
        _anew(shuffle)
        reports.append(judging.serve(program["chunks"]))
    return {"each": [] if reset.altered(before) else reports}


def examine(tests: Programs, salt: int) -> dict[str, Any]:
    """In the other child: run the tests of each program in turn."""
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
