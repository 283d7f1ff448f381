"""The bench an item is proved on: runs its programs twice in the sandbox and hands back what they agree on.

Programs are run together where they can be: all of an item, at all its seeds, in one process, and again in a second one
in the opposite order. If all give the same both times that is it; else each is run again, twice, in processes of its
own. So it is with the programs that tests judge, where a process is two: the programs' and the tests'.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from clearhead import sandbox
from clearhead.course.pack.item import Item, Pack, Program
from clearhead.course.proofs.placeholders import fill, names
from clearhead.errors import ProofError
from clearhead.sandbox import MIB, Chunk, Judged, Limits, Outcome
from clearhead.sandbox import Program as Planned

SALTS = (1, 2)  # one warm worker each: different hash seeds, different unseeded random numbers
_TOGETHER = 16 * MIB  # bytes that the programs of a batch may print and report
Case = tuple[tuple[Chunk, ...], tuple[Chunk, ...]]  # a program and its tests


@dataclass(frozen=True, slots=True)
class Job:
    """Programs that run after `setup` in one namespace, and the (name, format spec) wanted beside the item's own."""

    programs: tuple[Program | Chunk, ...]
    want: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Bench:
    """One item of a pack at one seed.

    Attributes:
        seeds: every seed at which what is run here is run as well; `at` gives the bench of another.
        tried: what was run together. done, judged: what came of it, where both runs agreed.
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
        """Every (name, format spec) that the item's prose asks for."""
        found = {(name, spec): None for section in self.item.sections for name, spec, _ in names(section.text)}
        return list(found)

    def chunks(self, *programs: Program | Chunk) -> list[Chunk]:
        """`seed`, the item's setup programs, then these."""
        first = [Chunk(f"seed = {self.seed}\n", "seed")]
        both = [*self.item.role("setup"), *programs]
        return first + [one if isinstance(one, Chunk) else Chunk(one.source, self.item.file, one.line) for one in both]

    def plan(self, job: Job) -> Planned:
        """What the sandbox is asked to run for this job."""
        return Planned(tuple(self.chunks(*job.programs)), (*self.wanted, *job.want))

    def at(self, seed: int) -> "Bench":
        """The same bench at another seed."""
        return replace(self, seed=seed)

    def ahead(self, *jobs: Job) -> None:
        """Run these jobs together now, at every seed; `run` then has their outcomes."""
        benches = [self.at(seed) for seed in self.seeds] or [self]
        together(self, [bench.plan(job) for bench in benches for job in jobs], times=len(benches))

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
        for one in runs:
            if one.stopped:
                raise self.wrong(line, _STOPPED[one.stopped].format(limits=limits, said=one.stderr.strip()[-300:]))
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
        """As `run`, and raise ProofError where the program raises, at the line that raised."""
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
        """Judge these (program, line) together now; `judge` then has what was found, where two runs agree on all."""
        cases = list(dict.fromkeys(self.case(*program, tests) for program in programs))
        limits = Limits(seconds=self.item.run_limit, output=_TOGETHER)
        preload = self.pack.preload
        first = sandbox.judge_each(cases, limits=limits, preload=preload, salt=SALTS[0])
        second = sandbox.judge_each(cases[::-1], limits=limits, preload=preload, salt=SALTS[1]) if first else None
        pairs = list(zip(first or (), reversed(second or ()), strict=False))
        if all(one.tests == two.tests for one, two in pairs):
            self.judged.update((case, one) for case, (one, _) in zip(cases, pairs, strict=False))

    def case(self, program: str, line: int, tests: Program) -> Case:
        """What the sandbox is asked to judge."""
        return tuple(self.chunks(Chunk(program, self.item.file, line))), tuple(self.chunks(tests))

    def raised(self, outcome: Outcome, line: int) -> ProofError:
        """The error for a program that should have run."""
        if outcome.raised is None:
            return self.wrong(line, f"the program ended with exit status {outcome.exit_code}")
        where = outcome.raised.line if outcome.raised.file == self.item.file and outcome.raised.line else line
        return self.wrong(where, f"the program raises {outcome.raised.type}: {outcome.raised.message}")

    def wrong(self, line: int | None, message: str) -> ProofError:
        """The error for this item at this line."""
        return ProofError(message, file=self.item.file, line=line)

    def values(self, *runs: Outcome) -> dict[str, str]:
        """The values of these runs, later ones winning.

        Raises:
            ProofError: a section that is not bound to one program asks for a name none of them sets; at its line.
        """
        found: dict[str, str] = {}
        for one in runs:
            found.update(one.values)
        for section in self.item.sections:
            bound = section.name in ("Option", "Pair", "Step") or (section.name == "Rationale" and section.argument)
            for name, spec, row in () if bound else names(section.text):
                if (f"{name}:{spec}" if spec else name) not in found:
                    raise self.wrong(section.text_line + row, f"no program of the item sets `{name}`")
        return found

    def rationale(self, misconception: str | None, values: Mapping[str, str]) -> str:
        """The author's words on this misconception (None: on the right answer), filled in; every name must be set."""
        argument = misconception or ""
        for section in self.item.named("Rationale"):
            if section.argument == argument:
                for name, spec, row in names(section.text):
                    if (f"{name}:{spec}" if spec else name) not in values:
                        raise self.wrong(section.text_line + row, f"no program sets `{name}` for this rationale")
                return fill(section.text, values)
        return ""

    def belief(self, misconception: str | None) -> str:
        """What a holder of it believes."""
        return self.pack.misconceptions.get(misconception or "", "")


def together(bench: Bench, plans: Sequence[Planned], times: int = 1) -> None:
    """Run these in two processes, in opposite orders; where both agree on all of them, keep that in `bench.done`.

    One may take as long as it may alone, and all together as long as one, `times` times.
    """
    plans = [one for one in dict.fromkeys(plans) if one not in bench.tried]
    if len(plans) < 2:
        return
    bench.tried.update(plans)
    limit = bench.item.run_limit
    limits = Limits(seconds=limit * times, output=_TOGETHER)
    preload = bench.pack.preload
    first = sandbox.run_each(plans, limits=limits, turn=limit, preload=preload, salt=SALTS[0])
    backward = plans[::-1]
    second = sandbox.run_each(backward, limits=limits, turn=limit, preload=preload, salt=SALTS[1]) if first else None
    pairs = list(zip(first or (), reversed(second or ()), strict=False))
    if all(_facts(one) == _facts(two) for one, two in pairs):
        bench.done.update((plan, one) for plan, (one, _) in zip(plans, pairs, strict=False) if not _refused(one))


def _refused(outcome: Outcome) -> bool:
    """Whether it ended in an exception that an author is told of in other words."""
    return bool(outcome.raised and {"PermissionError", "NotImplementedError"} & set(outcome.raised.kinds))


_STOPPED = {
    "time": "stopped after {limits.seconds:g} s; make it faster, or raise `time_limit` (30 s at most)",
    "memory": "stopped: it took more than {limits.memory:,} bytes of memory",
    "output": "stopped: it printed more than {limits.output:,} bytes",
    "disk": "stopped: it wrote more than {limits.disk:,} bytes",
    "start": "could not be started: {said}",
    "report": "what its process reports is damaged: {said} A program must not write to descriptors it did not open",
}


def shown(outcome: Outcome) -> str:
    """What a learner sees of a run: its output, then its exception as Python ends a traceback."""
    text = outcome.stdout.rstrip("\n")
    if outcome.raised:
        message = outcome.raised.message
        last = f"{outcome.raised.type}: {message}" if message else outcome.raised.type
        text = f"{text}\n{last}" if text else last
    return text


def fence(text: str, language: str = "text") -> str:
    """Markdown for a block, with a fence longer than any inside."""
    mark = "```"
    while mark in text:
        mark += "`"
    return f"{mark}{language}\n{text.rstrip()}\n{mark}"


def changes(before: str, after: str) -> str:
    """Markdown for how two programs differ, line by line."""
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
