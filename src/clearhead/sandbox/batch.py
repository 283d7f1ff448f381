"""Several programs one after another in one confined process: a process each costs ten times what most programs do.

What one program leaves behind the next may see, beyond what `fresh` sets back. So a batch is for programs of one author
alone, run twice in opposite orders, and what differs is run again, a process each.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from clearhead.sandbox import fresh
from clearhead.sandbox.limits import Outcome, Raised, no_memory
from clearhead.sandbox.running import run_chunks


def run(programs: Sequence[Mapping[str, Any]], mark: str, salt: int) -> dict[str, Any]:
    """In the child: run each in a namespace of its own; print the mark after each, on both streams."""
    reports = []
    for one in programs:
        fresh.streams()
        fresh.shuffle(salt)
        fresh.settings()
        reports.append(run_chunks(one["chunks"], one["want"]))
        for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            os.write(descriptor, mark.encode())
    return {"each": reports}


def outcomes(whole: Outcome, each: Sequence[Mapping[str, Any]], mark: str, count: int) -> list[Outcome] | None:
    """An outcome a program; None if the batch did not come to its end."""
    out, err = whole.stdout.split(mark), whole.stderr.split(mark)
    if whole.stopped or whole.exit_code or not len(each) == len(out) - 1 == len(err) - 1 == count:
        return None
    found = []
    for at, report in enumerate(each):
        said = report["raised"]
        raised = Raised(**{**said, "kinds": tuple(said["kinds"])}) if said else None
        if raised and no_memory(raised):
            return None
        code, seconds = int(said is not None), whole.seconds / count
        found.append(Outcome(out[at], err[at], code, None, seconds, raised, report["values"]))
    return found
