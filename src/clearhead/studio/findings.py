"""What a measurement says, in a sentence or two made from its numbers; and a guess to make before it.

A finding is written after the run, from the run: where a machine measures something else, it says something else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from clearhead.studio.curve import short
from clearhead.studio.language import _, mark

Column = Callable[[str], Sequence[float]]  # key of `found` -> its values, from the first point to the last


@dataclass(frozen=True)
class Guess:
    """A question to answer before measuring. `right` says from the numbers which answer is."""

    question: str
    answers: Sequence[str]
    right: Callable[[Column], int]


@dataclass(frozen=True)
class Finding:
    """What to guess, and what to say of the numbers."""

    guess: Guess
    said: Callable[[Column], list[str]]


def _against(values: Sequence[float]) -> float:
    """The last value as a multiple of the first."""
    return values[-1] / values[0] if values[0] else float("inf")


def _ratio(times: float) -> str:
    """How many times as much, in words.

    >>> _ratio(4.2), _ratio(0.01)
    ('4.2 times as much', '0.01 times as much')
    """
    return _("%(times)s times as much", times=short(times))


def _heads(column: Column) -> list[str]:
    parameters, entropy = column("parameters"), column("entropy")
    same = len(set(parameters)) == 1
    return [
        _(
            "Parameters: %(count)s, whatever the number of heads. The same matrices are only cut finer.",
            count=short(parameters[0]),
        )
        if same
        else _(
            "The parameters change from %(first)s to %(last)s.", first=short(parameters[0]), last=short(parameters[-1])
        ),
        _("Time: the last takes %(ratio)s as the first.", ratio=_ratio(_against(column("milliseconds")))),
        _(
            "A row's entropy goes from %(first)s to %(last)s nats: an untrained narrow head spreads its "
            "weight %(how)s.",
            first=short(entropy[0]),
            last=short(entropy[-1]),
            how=_("wider") if entropy[-1] > entropy[0] else _("less wide"),
        ),
    ]


def _scale(column: Column) -> list[str]:
    plain, scaled = column("gradient_plain"), column("gradient_scaled")
    return [
        _(
            "Without 1/√D the largest weight of a row rises to %(weight)s, and the gradient falls to "
            "%(share)s of what it was: the softmax is saturated, and nothing can be learned through it.",
            weight=short(column("largest_plain")[-1]),
            share=short(_against(plain)),
        ),
        _(
            "With it the largest weight ends at %(weight)s and the gradient at %(share)s of what it was.",
            weight=short(column("largest_scaled")[-1]),
            share=short(_against(scaled)),
        ),
    ]


def _length(column: Column) -> list[str]:
    recurrent, attention = column("recurrent"), column("attention")
    return [
        _(
            "Through the recurrent layer the first token's gradient ends at %(recurrent)s, through attention "
            "at %(attention)s: one step from anywhere to anywhere.",
            recurrent=short(recurrent[-1]),
            attention=short(attention[-1]),
        ),
        _(
            "The price: %(ratio)s time from the first point to the last, and one head's weights grow to "
            "%(megabytes)s MB, with the square of the length.",
            ratio=_ratio(_against(column("milliseconds"))),
            megabytes=short(column("megabytes")[-1]),
        ),
    ]


def _hard(column: Column) -> list[str]:
    entropy, distance, gradient = column("entropy"), column("distance"), column("gradient")
    return [
        _(
            "At the lowest temperature a row has %(entropy)s nats of entropy and lies %(distance)s from "
            "taking the best key alone; at the highest, %(wide)s nats.",
            entropy=short(entropy[0]),
            distance=short(distance[0]),
            wide=short(entropy[-1]),
        ),
        _(
            "The gradient is largest at %(most)s and at the coldest only %(least)s: a choice that is made "
            "has no slope. Hard attention is therefore trained by sampling, or by a smooth stand-in.",
            most=short(max(gradient)),
            least=short(gradient[0]),
        ),
    ]


def _band(value: float, low: float, high: float) -> int:
    """0 below `low`, 1 up to `high`, 2 above."""
    return 0 if value < low else 1 if value <= high else 2


FINDINGS: Mapping[str, Finding] = {
    "heads": Finding(
        Guess(
            mark("From one head to 32, the number of parameters will"),
            (mark("fall"), mark("stay the same"), mark("rise")),
            lambda column: _band(_against(column("parameters")), 0.999, 1.001),
        ),
        _heads,
    ),
    "scale": Finding(
        Guess(
            mark("Without the scale, from the narrowest head to the widest, the gradient will"),
            (mark("fall to less than half"), mark("stay about the same"), mark("more than double")),
            lambda column: _band(_against(column("gradient_plain")), 0.5, 2.0),
        ),
        _scale,
    ),
    "length": Finding(
        Guess(
            mark(
                "At the longest text, the gradient at the first token through the recurrent layer, beside "
                "attention's, will be"
            ),
            (mark("less than a thousandth"), mark("some part of it"), mark("larger")),
            lambda column: _band(column("recurrent")[-1] / column("attention")[-1], 1e-3, 1.0),
        ),
        _length,
    ),
    "hard": Finding(
        Guess(
            mark("At the lowest temperature, beside the highest, the gradient at the logits will be"),
            (mark("smaller"), mark("about the same"), mark("larger")),
            lambda column: _band(column("gradient")[0] / column("gradient")[-1], 0.5, 2.0),
        ),
        _hard,
    ),
}
