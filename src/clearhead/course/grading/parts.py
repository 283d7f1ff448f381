"""Grade responses of several parts: worked steps, matched pairs, free text by its rubric."""

from collections.abc import Mapping

from clearhead.course.grading.compare import same_result
from clearhead.course.grading.verdict import Verdict
from clearhead.course.pack.item import Item
from clearhead.course.proofs.proved import Option, Proved
from clearhead.course.rubric import ticks
from clearhead.errors import OptionError
from clearhead.messages import message


def explained(proved: Proved, option: Option, yours: str) -> Verdict:
    """Return the verdict on a wrong option: the belief behind it, the counterexample that was run, the rationale."""
    return Verdict(
        False, option.belief, proved.rule, proved.answer, option, option.counterexample, option.rationale, yours,
        figure=option.figure,
    )  # fmt: skip


def grade_worked(item: Item, proved: Proved, response: object) -> Verdict:
    """Grade typed results of some or all steps. The verdict names the first wrong one."""
    given = _mapping(response, "a mapping from step to typed result")
    steps = {step.key: step for step in proved.steps}
    if not given or not set(given) <= set(steps):
        raise OptionError(f"expected results for some of the steps {', '.join(steps)}, not for {', '.join(given)}")
    right = {key: same_result(text, steps[key].result, item.tolerance, item.unit) for key, text in given.items()}
    details = {key: steps[key].result for key in given}
    yours = "\n".join(f"{key}: {text}" for key, text in given.items())
    answer = "\n".join(f"{key}: {text}" for key, text in details.items())
    wrong = next((key for key in steps if right.get(key) is False), None)
    reason = message("Step %(step)s gives %(result)s.", step=wrong, result=steps[wrong].result) if wrong else ""
    return Verdict(wrong is None, reason, proved.rule, answer, yours=yours, details=details)


def grade_match(item: Item, proved: Proved, response: object) -> Verdict:
    """Grade {pair key: option key} of all pairs. The verdict names the first wrong one."""
    given = _mapping(response, "a mapping from pair to option")
    if set(given) != {step.key for step in proved.steps}:
        raise OptionError(f"expected an option for each pair {', '.join(step.key for step in proved.steps)}")
    shown = {option.key: option.text for option in proved.options}
    wrong = next((step for step in proved.steps if given[step.key] != step.right), None)
    yours = "\n".join(f"- {step.text}: {shown.get(given[step.key], '?')}" for step in proved.steps)
    count = sum(given[step.key] == step.right for step in proved.steps)
    reason = wrong and message(
        "%(count)s of %(all)s are right. %(this)s goes with %(other)s.",
        count=count, all=len(proved.steps), this=wrong.text, other=wrong.result,
    )  # fmt: skip
    details = {step.key: step.right for step in proved.steps}
    return Verdict(
        not wrong, reason or "", proved.rule, proved.answer, rationale=proved.rationale, yours=yours, details=details
    )


def grade_text(item: Item, proved: Proved, response: object) -> Verdict:
    """Grade free text by suggested ticks, or by the learner's own if the response has `ticks`."""
    confirmed: Mapping[str, object] | None = None
    if isinstance(response, Mapping):
        confirmation = response.get("ticks")
        confirmed = confirmation if isinstance(confirmation, Mapping) else None
        response = response.get("text")
    if not isinstance(response, str) or not response.strip():
        raise OptionError("expected a text of some words")
    marks = ticks(response, proved.criteria)
    fulfilled = {
        mark.criterion: mark.met if confirmed is None else bool(confirmed.get(mark.criterion)) for mark in marks
    }
    missing = [mark for mark in marks if not fulfilled[mark.criterion]]
    reason = message("Still missing: %(criterion)s", criterion=missing[0].text) if missing else ""
    return Verdict(
        not missing, reason, proved.rule, proved.answer, rationale=proved.rationale, yours=response, ticks=marks,
        suggested=confirmed is None,
    )  # fmt: skip


def _mapping(response: object, expected: str) -> dict[str, str]:
    if not isinstance(response, Mapping):
        raise OptionError(f"expected {expected}, not {response!r}")
    return {str(key): str(value) for key, value in response.items()}
