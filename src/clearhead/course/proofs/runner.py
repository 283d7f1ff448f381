"""Run an item's programs twice in the sandbox, and return what both runs agree on.

All programs of an item, at all its seeds, run in one process, and again in a second process in the opposite order. If
the results differ, each program runs again, twice, in processes of its own. Programs judged by tests run the same way,
in two processes each: the program's and the tests'.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clearhead import sandbox
from clearhead.course.pack.item import Item, Pack, Program
from clearhead.course.proofs.placeholders import fill, names, unset
from clearhead.errors import ProofError
from clearhead.sandbox import MIB, Chunk, Judged, Limits, Outcome
from clearhead.sandbox import Program as Planned

SALTS = (1, 2)  # one warm worker each: different hash seeds, different unseeded random numbers
_TOGETHER = 16 * MIB  # bytes that the programs of a batch may print and report
Case = tuple[tuple[Chunk, ...], tuple[Chunk, ...]]  # a program and its tests


@dataclass(frozen=True, slots=True)
class Job:
    """Programs that run after `setup` in one namespace, and the (name, format spec) of further values to return."""

    programs: tuple[Program | Chunk, ...]
    want: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Runner:
    """One item of a pack at one seed.

    Attributes:
        seeds: programs are run in advance at all of these seeds; `at` returns the runner of another seed.
        tried: programs that were run together. done, judged: their outcomes, if both runs agreed.
    """

    item: Item
    pack: Pack
    seed: int
    seeds: Sequence[int] = ()
    tried: set[Planned] = field(default_factory=set)
    done: dict[Planned, Outcome] = field(default_factory=dict)
    judged: dict[Case, Judged] = field(default_factory=dict)

    @property
    def wanted(self) -> list[tuple[str, str]]:
        """The (name, format spec) of every placeholder in the item's prose."""
        places = {(name, spec): None for section in self.item.sections for name, spec, _ in names(section.text)}
        return list(places)

    def chunks(self, *programs: Program | Chunk) -> list[Chunk]:
        """Return the chunks that set `seed`, the item's setup programs, then these."""
        return setup_chunks(self.item, self.seed) + [
            program if isinstance(program, Chunk) else chunk_of(program, self.item) for program in programs
        ]

    def plan(self, job: Job) -> Planned:
        """Return the program that the sandbox runs for this job."""
        return Planned(tuple(self.chunks(*job.programs)), (*self.wanted, *job.want))

    def at(self, seed: int) -> "Runner":
        """Return the same runner at another seed."""
        return replace(self, seed=seed)

    def ahead(self, *jobs: Job) -> None:
        """Run these jobs together now, at every seed; `run` then has their outcomes."""
        runners = [self.at(seed) for seed in self.seeds] or [self]
        together(self, [runner.plan(job) for runner in runners for job in jobs], times=len(runners))

    def run(self, *programs: Program | Chunk, want: Sequence[tuple[str, str]] = ()) -> Outcome:
        """Run setup and these programs, twice; return the outcome both agree on.

        Raises:
            ProofError: they disagree, or a limit stopped one; at the line of the last program.
        """
        line = programs[-1].line if programs else self.item.lines.get("id", 1)
        job = Job(programs, tuple(want))
        plan = self.plan(job)
        if len(plan.chunks) == 1:
            return Outcome("", "", 0, None, 0.0)  # no program but the seed
        if plan not in self.tried and len(self.seeds) > 1:
            self.ahead(job)
        if plan in self.done:
            return self.done[plan]
        chunks, wanted = plan.chunks, plan.want
        limits = Limits(seconds=self.item.run_limit)
        runs = [sandbox.run(chunks, limits=limits, want=wanted, preload=self.pack.preload, salt=salt) for salt in SALTS]
        for outcome in runs:
            if outcome.stopped:
                raise self.wrong(
                    line, _STOPPED[outcome.stopped].format(limits=limits, error=outcome.stderr.strip()[-300:])
                )
        refused = runs[0].raised
        if refused and "PermissionError" in refused.kinds:
            message = f"the sandbox refused it: {refused.message}. No files but its own, no network, no processes"
            raise self.wrong(refused.line if refused.file == self.item.file else line, message)
        if refused and "NotImplementedError" in refused.kinds:
            where = refused.line if refused.file == self.item.file else line
            raise self.wrong(where, f"not written yet: {refused.message}")
        if _facts(runs[0]) != _facts(runs[1]):
            raise self.wrong(
                line, f"two runs disagree: {_difference(*runs)}. Seed what is random: torch.manual_seed(seed)"
            )
        return runs[0]

    def must_run(self, *programs: Program | Chunk, want: Sequence[tuple[str, str]] = ()) -> Outcome:
        """Run as `run` does; if the program raises, raise ProofError at that line."""
        outcome = self.run(*programs, want=want)
        if not outcome.ok:
            raise self.raised(outcome, programs[-1].line if programs else 1)
        return outcome

    def judge(self, program: str, line: int, tests: Program) -> Judged:
        """Judge a program by the item's tests, in two processes, twice; return what both agree on."""
        case = self.case(program, line, tests)
        if case in self.judged:
            return self.judged[case]
        limits = Limits(seconds=self.item.run_limit)
        first, second = (sandbox.judge(*case, limits=limits, preload=self.pack.preload, salt=salt) for salt in SALTS)
        if first.tests != second.tests:
            raise self.wrong(line, "two runs of the tests disagree. Seed what is random: torch.manual_seed(seed)")
        return first

    def judge_ahead(self, tests: Program, *programs: tuple[str, int]) -> None:
        """Judge these (program, line) together now, so that `judge` has the results if two runs agree."""
        cases = list(dict.fromkeys(self.case(*program, tests) for program in programs))
        limits = Limits(seconds=self.item.run_limit, output=_TOGETHER)
        preload = self.pack.preload
        first = sandbox.judge_each(cases, limits=limits, preload=preload, salt=SALTS[0])
        second = sandbox.judge_each(cases[::-1], limits=limits, preload=preload, salt=SALTS[1]) if first else None
        pairs = list(zip(first or (), reversed(second or ()), strict=False))
        if all(verdict.tests == other.tests for verdict, other in pairs):
            self.judged.update((case, verdict) for case, (verdict, _) in zip(cases, pairs, strict=False))

    def case(self, program: str, line: int, tests: Program) -> Case:
        """Return the program and tests that the sandbox judges."""
        return tuple(self.chunks(Chunk(program, self.item.file, line))), tuple(self.chunks(tests))

    def raised(self, outcome: Outcome, line: int) -> ProofError:
        """Return the error for a program that should have run."""
        if outcome.raised is None:
            return self.wrong(line, f"the program ended with exit status {outcome.exit_code}")
        where = outcome.raised.line if outcome.raised.file == self.item.file and outcome.raised.line else line
        return self.wrong(where, f"the program raises {outcome.raised.type}: {outcome.raised.message}")

    def wrong(self, line: int | None, message: str) -> ProofError:
        """Return the error for this item at this line."""
        return ProofError(message, file=self.item.file, line=line)

    def values(self, *runs: Outcome) -> dict[str, str]:
        """Return the values of these runs; later ones override earlier ones.

        Raises:
            ProofError: prose that belongs to no single program uses a name that none of them sets; at its line.
        """
        values: dict[str, str] = {}
        for outcome in runs:
            values.update(outcome.values)
        for section in self.item.sections:
            bound = section.name in ("Option", "Pair", "Step") or (section.name == "Rationale" and section.argument)
            if not bound and (lacking := unset(section.text, values)):
                name, row = lacking
                raise self.wrong(section.text_line + row, f"no program of the item sets `{name}`")
        return values

    def rationale(self, misconception: str | None, values: Mapping[str, str]) -> str:
        """Return the author's rationale for a misconception (None: for the right answer), placeholders filled."""
        argument = misconception or ""
        for section in self.item.named("Rationale"):
            if section.argument == argument:
                if lacking := unset(section.text, values):
                    name, row = lacking
                    raise self.wrong(section.text_line + row, f"no program sets `{name}` for this rationale")
                return fill(section.text, values)
        return ""

    def belief(self, misconception: str | None) -> str:
        """Return the belief behind a misconception, in a sentence."""
        return self.pack.misconceptions.get(misconception or "", "")


def setup_chunks(item: Item, seed: int) -> list[Chunk]:
    """Return what runs before every program of an item: a line that sets `seed`, and the setup programs."""
    return [Chunk(f"seed = {seed}\n", "seed"), *(chunk_of(program, item) for program in item.role("setup"))]


def chunk_of(program: Program, item: Item) -> Chunk:
    """Return a program of an item for the sandbox, whose errors name its place in the item's file."""
    return Chunk(program.source, item.file, program.line)


def together(runner: Runner, plans: Sequence[Planned], times: int = 1) -> None:
    """Run these in two processes, in opposite orders. If both agree on all, store the outcomes in `runner.done`.

    Each has the time limit that it has alone; all together have `times` as much.
    """
    plans = [plan for plan in dict.fromkeys(plans) if plan not in runner.tried]
    if len(plans) < 2:
        return
    runner.tried.update(plans)
    limit = runner.item.run_limit
    limits = Limits(seconds=limit * times, output=_TOGETHER)
    preload = runner.pack.preload
    first = sandbox.run_each(plans, limits=limits, time_each=limit, preload=preload, salt=SALTS[0])
    backward = plans[::-1]
    second = (
        sandbox.run_each(backward, limits=limits, time_each=limit, preload=preload, salt=SALTS[1]) if first else None
    )
    pairs = list(zip(first or (), reversed(second or ()), strict=False))
    if all(_facts(outcome) == _facts(other) for outcome, other in pairs):
        runner.done.update(
            (plan, outcome) for plan, (outcome, _) in zip(plans, pairs, strict=False) if not _refused(outcome)
        )


def _refused(outcome: Outcome) -> bool:
    """Return whether it ended in an exception that has its own error message."""
    return bool(outcome.raised and {"PermissionError", "NotImplementedError"} & set(outcome.raised.kinds))


_STOPPED = {
    "time": "stopped after {limits.seconds:g} s; make it faster, or raise `time_limit` (30 s at most)",
    "memory": "stopped: it took more than {limits.memory:,} bytes of memory",
    "output": "stopped: it printed more than {limits.output:,} bytes",
    "disk": "stopped: it wrote more than {limits.disk:,} bytes",
    "start": "could not be started: {error}",
    "report": "what its process reports is damaged: {error} A program must not write to descriptors it did not open",
}


def shown(outcome: Outcome) -> str:
    """Return what a learner sees of a run: its output, then the last line of its traceback."""
    text = outcome.stdout.rstrip("\n")
    if outcome.raised:
        message = outcome.raised.message
        last = f"{outcome.raised.type}: {message}" if message else outcome.raised.type
        text = f"{text}\n{last}" if text else last
    return text


def fence(text: str, language: str = "text") -> str:
    """Return a fenced Markdown block, with a fence longer than any inside."""
    mark = "```"
    while mark in text:
        mark += "`"
    return f"{mark}{language}\n{text.rstrip()}\n{mark}"


def changes(before: str, after: str) -> str:
    """Return the difference of two programs as a Markdown block."""
    rows = difflib.unified_diff(before.rstrip().splitlines(), after.rstrip().splitlines(), lineterm="", n=0)
    kept = [row for row in rows if not row.startswith(("---", "+++", "@@"))]
    return fence("\n".join(kept), "diff")


def _facts(outcome: Outcome) -> tuple[object, ...]:
    return outcome.stdout, outcome.exit_code, outcome.raised, dict(outcome.values)


def _difference(first: Outcome, second: Outcome) -> str:
    for name, value in first.values.items():
        if second.values.get(name) != value:
            return f"`{name}` is {value[:60]!r} and then {second.values.get(name, '')[:60]!r}"
    return f"it gives {shown(first)[:80]!r} and then {shown(second)[:80]!r}"
