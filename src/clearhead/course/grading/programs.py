"""Grade responses that have to be run: a program the learner wrote, an order of steps."""

from collections.abc import Sequence
from dataclasses import replace

from clearhead import sandbox
from clearhead.course.grading.parts import explained
from clearhead.course.grading.verdict import Verdict
from clearhead.course.pack.item import Item
from clearhead.course.proofs.kinds.code import signature
from clearhead.course.proofs.kinds.order import replay
from clearhead.course.proofs.proved import Proved
from clearhead.course.proofs.runner import chunk_of, setup_chunks, shown
from clearhead.errors import OptionError
from clearhead.messages import message
from clearhead.sandbox import Chunk, Limits


def grade_program(item: Item, proved: Proved, response: object, preload: Sequence[str], owner: str) -> Verdict:
    """Judge a program by the item's tests, in two confined processes.

    If the tests fail exactly as they do for a known mutant, the verdict names that mutant's misconception.
    """
    if not isinstance(response, str) or not response.strip():
        raise OptionError("expected a program")
    before, tests = setup_chunks(item, proved.receipt.seed), chunk_of(item.role("tests")[0], item)
    judged = sandbox.judge(
        [*before, Chunk(response, "your program")], [*before, tests],
        limits=Limits(seconds=item.run_limit), preload=preload, owner=owner,
    )  # fmt: skip
    results = tuple((test.title, test.passed, test.message) for test in judged.tests)
    if judged.passed:
        return Verdict(True, "", proved.rule, proved.answer, rationale=proved.rationale, yours=response, tests=results)
    failed = next(test for test in judged.tests if not test.passed)
    mine = signature(judged)
    known = next((option for option in proved.options if not option.correct and option.output == mine), None)
    if known and item.kind == "code":
        counterexample = f"{failed.title}: {failed.message}"
        return replace(explained(proved, known, response), counterexample=counterexample, figure="", tests=results)
    reason = f"{failed.title}: {failed.message}"
    return Verdict(False, reason, proved.rule, proved.answer, counterexample=reason, yours=response, tests=results)


def breaks_at(keys: Sequence[str], orders: Sequence[Sequence[str]]) -> int:
    """Return the place, from 1, of the first key after which no order that works can go on.

    >>> breaks_at("acb", ["abc", "bac"])
    2
    """
    return 1 + max(
        next(
            (place for place, (mine, right) in enumerate(zip(keys, order, strict=True)) if mine != right), len(keys) - 1
        )
        for order in orders
    )


def grade_order(item: Item, proved: Proved, response: object, preload: Sequence[str], owner: str) -> Verdict:
    """Grade keys in order: right if the proof saw that order pass; otherwise run it to show what happens."""
    codes = {step.key: step.code for step in proved.steps}
    if isinstance(response, (str, bytes)) or not isinstance(response, Sequence) or sorted(response) != sorted(codes):
        raise OptionError(f"expected the keys {', '.join(sorted(codes))} in an order, not {response!r}")
    keys = tuple(str(key) for key in response)
    yours = "\n".join(codes[key] for key in keys)
    if keys in proved.orders:
        return Verdict(True, "", proved.rule, proved.answer, rationale=proved.rationale, yours=yours)
    chunks = replay(item, proved.receipt.seed, [codes[key] for key in keys])
    run = sandbox.run(chunks, limits=Limits(seconds=item.run_limit), preload=preload, owner=owner)
    ended = shown(run).splitlines()[-1:]
    place = breaks_at(keys, proved.orders)
    step = codes[keys[place - 1]].strip()
    reason = (
        message(
            "Step %(place)s is the first that does not fit here: `%(step)s`. "
            "In this order the program ends with: %(end)s",
            place=place,
            step=step,
            end=ended[0],
        )
        if ended
        else message(
            "Step %(place)s is the first that does not fit here: `%(step)s`. The tests fail.", place=place, step=step
        )
    )
    return Verdict(
        False, reason, proved.rule, proved.answer, counterexample=reason, rationale=proved.rationale, yours=yours
    )
