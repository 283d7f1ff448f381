"""The findings and the guesses of the experiments in `context_programs.py`."""

from collections.abc import Mapping

from clearhead.studio.explore.experiments.experiment import SIDE, TIME, Column, Finding, Guess, band, change
from clearhead.studio.explore.experiments.samples import Direction
from clearhead.studio.text.translation import mark


def _window(column: Column) -> list[str]:
    return [
        change(column, "lost").sentence(_LOST),
        change(column, "distance").sentence(_WINDOW_DISTANCE),
        change(column, "pairs", same=0.0).sentence(_PAIRS),
    ]


_LOST: Mapping[Direction, str] = {
    "rises": mark(
        "From the narrowest window to the widest, the lost share of the weight rises from %(first)s to %(last)s."
    ),
    "falls": mark(
        "From the narrowest window to the widest, the lost share of the weight falls from %(first)s to %(last)s."
    ),
    "same": mark("The lost share of the weight is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("The lost share of the weight shows no clear change: %(first)s, then %(last)s."),
}
_WINDOW_DISTANCE: Mapping[Direction, str] = {
    "rises": mark("The output's distance from full attention rises from %(first)s to %(last)s."),
    "falls": mark("The output's distance from full attention falls from %(first)s to %(last)s."),
    "same": mark("The output's distance from full attention is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("The output's distance from full attention shows no clear change: %(first)s, then %(last)s."),
}
_PAIRS: Mapping[Direction, str] = {
    "rises": mark("Pairs: the work rises to %(times)s that of the narrowest window, from %(first)s to %(last)s."),
    "falls": mark("Pairs: the work falls to %(times)s that of the narrowest window, from %(first)s to %(last)s."),
    "same": mark("Pairs: the work is unchanged, %(first)s."),
    "unclear": mark("Pairs: the work shows no clear change, %(first)s, then %(last)s."),
}


def _positions(column: Column) -> list[str]:
    return [change(column, "table").sentence(_TABLE), change(column, "rotary").sentence(_ROTARY)]


_TABLE: Mapping[Direction, str] = {
    "rises": mark("With a vector for each position the share rises from %(first)s to %(last)s."),
    "falls": mark("With a vector for each position the share falls from %(first)s where it was fitted to %(last)s."),
    "same": mark("With a vector for each position the share is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("With a vector for each position the share shows no clear change: %(first)s, then %(last)s."),
}
_ROTARY: Mapping[Direction, str] = {
    "rises": mark("With rotation the share rises from %(first)s to %(last)s."),
    "falls": mark("With rotation the share falls from %(first)s where it was fitted to %(last)s."),
    "same": mark(
        "With rotation the share is unchanged: %(first)s, then %(last)s. Its scores depend on distances alone."
    ),
    "unclear": mark("With rotation the share shows no clear change: %(first)s, then %(last)s."),
}


def _cache(column: Column) -> list[str]:
    return [
        change(column, "megabytes", same=0.0).sentence(_CACHE_MEMORY),
        change(column, "milliseconds", same=TIME).sentence(_CACHE_TIME),
    ]


_CACHE_MEMORY: Mapping[Direction, str] = {
    "rises": mark("Memory: from one key head to 32 the cache rises from %(first)s to %(last)s MB, %(times)s as much."),
    "falls": mark("Memory: from one key head to 32 the cache falls from %(first)s to %(last)s MB."),
    "same": mark("Memory: the cache is unchanged, %(first)s MB."),
    "unclear": mark("Memory: the cache shows no clear change, %(first)s MB, then %(last)s MB."),
}
_CACHE_TIME: Mapping[Direction, str] = {
    "rises": mark("Time: it rises. 32 key heads take %(times)s as long as one: %(last)s ms after %(first)s ms."),
    "falls": mark("Time: it falls. 32 key heads take %(times)s as long as one: %(last)s ms after %(first)s ms."),
    "same": mark("Time: unchanged. One key head takes %(first)s ms, 32 take %(last)s ms."),
    "unclear": mark("Time: no clear difference. 32 key heads take %(times)s as long as one, and the seeds disagree."),
}


def _dropout(column: Column) -> list[str]:
    return [
        change(column, "mean").sentence(_MEAN),
        change(column, "spread").sentence(_SPREAD),
        change(column, "distance").sentence(_DROPOUT_DISTANCE),
    ]


_MEAN: Mapping[Direction, str] = {
    "rises": mark("On average a row's sum rises from %(first)s to %(last)s."),
    "falls": mark("On average a row's sum falls from %(first)s to %(last)s."),
    "same": mark("On average a row's sum is unchanged: %(first)s at the lowest rate, %(last)s at the highest."),
    "unclear": mark("On average a row's sum shows no clear change: %(first)s, then %(last)s."),
}
_SPREAD: Mapping[Direction, str] = {
    "rises": mark("A single row strays from it: the spread of the sum rises from %(first)s to %(last)s."),
    "falls": mark("The spread of the sum falls from %(first)s to %(last)s."),
    "same": mark("The spread of the sum is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("The spread of the sum shows no clear change: %(first)s, then %(last)s."),
}
_DROPOUT_DISTANCE: Mapping[Direction, str] = {
    "rises": mark("The output's distance from that without dropout rises from %(first)s to %(last)s."),
    "falls": mark("The output's distance from that without dropout falls from %(first)s to %(last)s."),
    "same": mark("The output's distance from that without dropout is unchanged: %(first)s, then %(last)s."),
    "unclear": mark("The output's distance from that without dropout shows no clear change: %(first)s, then %(last)s."),
}

CONTEXT_FINDINGS: Mapping[str, Finding] = {
    "window": Finding(
        Guess(
            mark("The widest window is 32 times as wide as the narrowest. The pairs it computes will be"),
            (mark("fewer than 32 times as many"), mark("32 times as many"), mark("more than 32 times as many")),
            lambda column: band(change(column, "pairs"), 32.0, 32.0),
        ),
        _window,
    ),
    "positions": Finding(
        Guess(
            mark("Far past the trained length, with a vector for each position, the share of right keys will"),
            (mark("fall to less than half"), mark("fall, but not so far"), mark("stay the same or rise")),
            lambda column: band(change(column, "table"), 0.5, 1.0 - 1e-9),
        ),
        _positions,
    ),
    "cache": Finding(
        Guess(
            mark("From one key head to 32, the cache will grow to"),
            (mark("less than 32 times as much"), mark("32 times as much"), mark("more than 32 times as much")),
            lambda column: band(change(column, "megabytes"), 32.0, 32.0),
        ),
        _cache,
    ),
    "dropout": Finding(
        Guess(
            mark("As the rate rises, the average sum of a row will"),
            (mark("fall"), mark("stay the same"), mark("rise")),
            lambda column: SIDE[change(column, "mean").direction],
        ),
        _dropout,
    ),
}
