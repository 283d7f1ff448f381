"""Sentences about a measurement, chosen by its numbers over all seeds, and the guess before it."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.context_findings import CONTEXT_FINDINGS
from clearhead.studio.explore.experiments.experiment import SIDE, TIME, Column, Finding, Guess, band, change
from clearhead.studio.explore.experiments.layers import LAYER_FINDINGS
from clearhead.studio.explore.experiments.models import MODEL_FINDINGS
from clearhead.studio.explore.experiments.samples import Change, Direction, SampleRange
from clearhead.studio.explore.experiments.vectors import VECTOR_FINDINGS
from clearhead.studio.text.translation import _, mark


def _heads(column: Column) -> list[str]:
    return [
        change(column, "parameters", same=0.0).sentence(_PARAMETERS),
        change(column, "milliseconds", same=TIME).sentence(_HEADS_TIME),
        change(column, "entropy").sentence(_HEADS_ENTROPY),
    ]


_PARAMETERS: Mapping[Direction, str] = {
    "same": mark("Parameters: %(first)s, whatever the number of heads. The same matrices are only cut finer."),
    "rises": mark("Parameters: they rise from %(first)s with one head to %(last)s with the most."),
    "falls": mark("Parameters: they fall from %(first)s with one head to %(last)s with the most."),
    "unclear": mark("Parameters: %(first)s with one head, %(last)s with the most, and no clear direction."),
}
_HEADS_TIME: Mapping[Direction, str] = {
    "same": mark("Time: unchanged. One head takes %(first)s ms, the most heads %(last)s ms."),
    "rises": mark("Time: it rises. The most heads take %(times)s as long as one head: %(last)s ms after %(first)s ms."),
    "falls": mark("Time: it falls. The most heads take %(times)s as long as one head: %(last)s ms after %(first)s ms."),
    "unclear": mark(
        "Time: no clear difference. The most heads take %(times)s as long as one head, and the range includes both "
        "longer and shorter."
    ),
}
_HEADS_ENTROPY: Mapping[Direction, str] = {
    "same": mark(
        "A row's entropy is unchanged: %(first)s nats with one head, %(last)s with the most. In an untrained layer a "
        "narrow head spreads its weight as widely as a wide one."
    ),
    "rises": mark(
        "A row's entropy rises from %(first)s to %(last)s nats: in this untrained layer narrow heads spread their "
        "weight wider."
    ),
    "falls": mark(
        "A row's entropy falls from %(first)s to %(last)s nats: in this untrained layer narrow heads spread their "
        "weight less wide."
    ),
    "unclear": mark(
        "A row's entropy shows no clear change: %(first)s nats with one head, %(last)s with the most, and the seeds "
        "disagree."
    ),
}


def _scale(column: Column) -> list[str]:
    sentences = [
        change(column, f"{quantity}_{scale}").sentence(patterns)
        for scale, table in (("plain", _WITHOUT_SCALE), ("scaled", _WITH_SCALE))
        for quantity, patterns in table.items()
    ]
    largest, gradient = change(column, "largest_plain"), change(column, "gradient_plain")
    if gradient.direction == "falls" and largest.direction == "rises":
        sentences.insert(2, _saturation(largest.last, gradient.times))
    return sentences


def _saturation(largest: SampleRange, share: SampleRange) -> str:
    """Return what a smaller gradient means, depending on how much of it is left."""
    if largest.middle >= 0.9 and share.high < 0.01:
        return _("The softmax is saturated: hardly anything can be learned through it.")
    if largest.middle >= 0.9:
        return _("The softmax is close to choosing one key: learning goes on through it, with less of the gradient.")
    return _("The softmax is sharper, and less of the gradient gets through it.")


_WITHOUT_SCALE: Mapping[str, Mapping[Direction, str]] = {
    "largest": {
        "rises": mark("Without 1/√D the largest weight of a row rises from %(first)s to %(last)s."),
        "falls": mark("Without 1/√D the largest weight of a row falls from %(first)s to %(last)s."),
        "same": mark("Without 1/√D the largest weight of a row is unchanged: %(first)s, then %(last)s."),
        "unclear": mark("Without 1/√D the largest weight shows no clear change: %(first)s, then %(last)s."),
    },
    "gradient": {
        "rises": mark("Without 1/√D the gradient rises to %(times)s what it was at the narrowest head."),
        "falls": mark("Without 1/√D the gradient falls to %(times)s what it was at the narrowest head."),
        "same": mark("Without 1/√D the gradient is unchanged: %(first)s, then %(last)s."),
        "unclear": mark(
            "Without 1/√D the gradient shows no clear change: %(times)s what it was, and the seeds disagree."
        ),
    },
}
_WITH_SCALE: Mapping[str, Mapping[Direction, str]] = {
    "largest": {
        "rises": mark("With 1/√D the largest weight of a row rises from %(first)s to %(last)s."),
        "falls": mark("With 1/√D the largest weight of a row falls from %(first)s to %(last)s."),
        "same": mark("With 1/√D the largest weight of a row is unchanged: %(first)s, then %(last)s."),
        "unclear": mark("With 1/√D the largest weight shows no clear change: %(first)s, then %(last)s."),
    },
    "gradient": {
        "rises": mark("With 1/√D the gradient rises to %(times)s what it was at the narrowest head."),
        "falls": mark("With 1/√D the gradient falls to %(times)s what it was at the narrowest head."),
        "same": mark("With 1/√D the gradient is unchanged: %(first)s, then %(last)s."),
        "unclear": mark("With 1/√D the gradient shows no clear change: %(times)s what it was, and the seeds disagree."),
    },
}


def _length(column: Column) -> list[str]:
    apart = Change.between(column("recurrent")[-1], column("attention")[-1])
    memory, tokens = change(column, "megabytes", same=0.0), change(column, "x", same=0.0)
    square = abs(memory.times.middle / tokens.times.middle**2 - 1) < 0.01
    return [
        apart.sentence(_REACH),
        change(column, "attention").sentence(_SHARED),
        change(column, "milliseconds", same=TIME).sentence(_LENGTH_TIME),
        _(_SQUARE if square else _MEMORY, first=memory.first.text, last=memory.last.text),
    ]


_SQUARE = mark("Memory: one head's weights go from %(first)s to %(last)s MB, with the square of the length.")
_MEMORY = mark("Memory: one head's weights go from %(first)s to %(last)s MB.")
_REACH: Mapping[Direction, str] = {
    "rises": mark(
        "At the longest text the first token's gradient is %(first)s through the recurrent layer and larger through "
        "attention, %(last)s: one step from anywhere to anywhere."
    ),
    "falls": mark(
        "At the longest text the first token's gradient is %(first)s through the recurrent layer and smaller through "
        "attention, %(last)s."
    ),
    "same": mark(
        "At the longest text the first token's gradient is the same through both: %(first)s through the recurrent "
        "layer, %(last)s through attention."
    ),
    "unclear": mark(
        "At the longest text the seeds disagree on where the first token's gradient is larger: %(first)s through the "
        "recurrent layer, %(last)s through attention."
    ),
}
_SHARED: Mapping[Direction, str] = {
    "falls": mark(
        "Attention's own gradient falls to %(times)s what it was at the shortest text: every token gets a share, and "
        "there are more of them."
    ),
    "rises": mark("Attention's own gradient rises to %(times)s what it was at the shortest text."),
    "same": mark("Attention's own gradient is unchanged from the shortest text to the longest."),
    "unclear": mark(
        "Attention's own gradient shows no clear change: %(times)s what it was at the shortest text, and the seeds "
        "disagree."
    ),
}
_LENGTH_TIME: Mapping[Direction, str] = {
    "rises": mark("Time: it rises. The longest text takes %(times)s as long as the shortest."),
    "falls": mark("Time: it falls. The longest text takes %(times)s as long as the shortest."),
    "same": mark("Time: unchanged. The shortest text takes %(first)s ms, the longest %(last)s ms."),
    "unclear": mark(
        "Time: no clear difference. The longest text takes %(times)s as long as the shortest, and the range includes "
        "both longer and shorter."
    ),
}


def _hard(column: Column) -> list[str]:
    return [
        change(column, "entropy").sentence(_SOFTER),
        change(column, "distance").sentence(_FARTHER),
        change(column, "gradient").sentence(_SLOPE),
    ]


_SOFTER: Mapping[Direction, str] = {
    "rises": mark("From the lowest temperature to the highest, a row's entropy rises from %(first)s to %(last)s nats."),
    "falls": mark("From the lowest temperature to the highest, a row's entropy falls from %(first)s to %(last)s nats."),
    "same": mark("A row's entropy is unchanged: %(first)s nats at the lowest temperature, %(last)s at the highest."),
    "unclear": mark(
        "A row's entropy shows no clear change: %(first)s nats at the lowest temperature, %(last)s at the highest."
    ),
}
_FARTHER: Mapping[Direction, str] = {
    "rises": mark(
        "The distance from taking the best key alone rises with it, from %(first)s to %(last)s: cold attention is "
        "close to a hard choice."
    ),
    "falls": mark("The distance from taking the best key alone falls from %(first)s to %(last)s."),
    "same": mark("The distance from taking the best key alone is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("The distance from taking the best key alone shows no clear change: %(first)s, then %(last)s."),
}
_SLOPE: Mapping[Direction, str] = {
    "rises": mark(
        "The gradient at the logits rises from %(first)s at the lowest temperature to %(last)s at the highest: "
        "a clear choice has almost no gradient. Hard attention is therefore trained by sampling, or by a smooth "
        "stand-in."
    ),
    "falls": mark(
        "The gradient at the logits falls from %(first)s at the lowest temperature to %(last)s at the highest."
    ),
    "same": mark(
        "The gradient at the logits is unchanged: %(first)s at the lowest temperature, %(last)s at the highest."
    ),
    "unclear": mark(
        "The gradient at the logits shows no clear change: %(first)s at the lowest temperature, %(last)s at the "
        "highest, and the seeds disagree."
    ),
}


FINDINGS: Mapping[str, Finding] = {
    "heads": Finding(
        Guess(
            mark("From one head to 32, the number of parameters will"),
            (mark("fall"), mark("stay the same"), mark("rise")),
            lambda column: band(change(column, "parameters"), 1.0, 1.0),
        ),
        _heads,
    ),
    "scale": Finding(
        Guess(
            mark("Without the scale, from the narrowest head to the widest, the gradient will"),
            (mark("fall to less than half"), mark("stay between half and double"), mark("more than double")),
            lambda column: band(change(column, "gradient_plain"), 0.5, 2.0),
        ),
        _scale,
    ),
    "length": Finding(
        Guess(
            mark(
                "At the longest text, the gradient at the first token through the recurrent layer, compared with "
                "attention's, will be"
            ),
            (mark("less than a thousandth"), mark("between a thousandth and the same"), mark("larger")),
            lambda column: band(Change.between(column("attention")[-1], column("recurrent")[-1]), 1e-3, 1.0),
        ),
        _length,
    ),
    "hard": Finding(
        Guess(
            mark("At the lowest temperature, compared with the highest, the gradient at the logits will be"),
            (mark("smaller"), mark("about the same"), mark("larger")),
            lambda column: SIDE[Change.between(column("gradient")[-1], column("gradient")[0]).direction],
        ),
        _hard,
    ),
    **CONTEXT_FINDINGS,
    **VECTOR_FINDINGS,
    **LAYER_FINDINGS,
    **MODEL_FINDINGS,
}
