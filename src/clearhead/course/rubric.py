"""Compare free text with a rubric: suggest ticks, with the words that justify each, for the learner to confirm.

Words are compared by stem, and long ones with tolerance for a typing error; symbols such as d_k and QK^T count as
the words that they stand for. Negated phrases do not count, nor do keywords without the small words of a sentence.
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz.distance import Levenshtein
from snowballstemmer import stemmer

from clearhead.messages import message

_WORD = re.compile(
    r"[Qq] ?[·⋅*@] ?[Kk](?:\^?[Tt]\b)?|[Qq][Kk]\^[Tt]\b|[A-Za-z]_[A-Za-z]+|[A-Za-z0-9√²ᵀ]+(?:['’][a-z]+)?"
)
_END = re.compile(r"[.!?;:]\s|\n\s*\n|\n\s*[-*]\s")
_CLAUSE = re.compile(rf"{_END.pattern}|,\s+(?=(?:so|but|thus|hence|therefore|whereas|while)\b)", re.IGNORECASE)
_DENIALS = {"not", "no", "never", "without", "neither", "nor", "cannot", "hardly", "instead", "unlike"}
_SMALL = frozenset(
    re.findall(
        r"\w+",
        """
        a an the is are was were be been being it its they them their this that these those of to in on at by
        for from with as so because since when if then than and or but not no never can could would will may
        must do does did has have had each every all any one only more most less which who what how why while
        where into over under up down out between we you i he she there here also just
        """,
    )
)
_WIDTH = ("width",)
_NOTATION = {  # what people write, without the punctuation -> the words of a rubric that it stands for
    "q": ("query",), "k": ("key",), "v": ("value",), "qkv": ("query", "key", "value"),
    **dict.fromkeys(("qk", "qkt", "qkᵀ"), ("query", "key", "dot product", "compared")),
    **dict.fromkeys(("d", "dk", "d_k", "d_head", "d_model", "dim", "dimension", "dimensionality"), _WIDTH),
    "w_q": ("matrix", "query"), "w_k": ("matrix", "key"), "w_v": ("matrix", "value"),
    "w_o": ("output matrix", "output projection", "matrix", "projection"), "wo": ("output matrix",),
    "layernorm": ("norm", "layer norm"), "rmsnorm": ("norm", "RMS"), "ffn": ("MLP", "feed-forward"),
    "max": ("maximum", "largest"), "materialised": ("stored",), "materialized": ("stored",),
    "differentiable": ("smooth", "slope"),
}  # fmt: skip
_GAP = 3  # other words allowed inside a phrase
_REACH = 4  # a negation within this many words before a phrase negates it
PROSE = 0.2  # a run of words with at least this share of small words is a sentence


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion of a free-text rubric. Each group of `terms` must be met by one of its phrases."""

    id: str
    text: str
    terms: tuple[tuple[str, ...], ...]
    ordered: bool = False
    without: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tick:
    """A suggested tick for one criterion of a free-text answer; the learner confirms it.

    Attributes:
        met: what the machine suggests.
        evidence: (start, end) spans of the response that justify it.
        why: in words, when it is not met: what is missing, out of order, or denied.
    """

    criterion: str
    text: str
    met: bool
    evidence: tuple[tuple[int, int], ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Word:
    stem: str
    raw: str
    start: int
    end: int
    sentence: int
    clause: int
    meanings: frozenset[tuple[str, ...]] = frozenset()  # stems of the words that a symbol stands for


@lru_cache(maxsize=10_000)  # bounded: learners can type any number of different words
def _stem(word: str) -> str:
    return str(stemmer("english").stemWord(word))


def ticks(text: str, criteria: Iterable[Criterion]) -> tuple[Tick, ...]:
    """Return a suggested tick for each criterion.

    >>> criterion = Criterion("scale", "It says that the logits are divided.", (("divide",), ("square root", "sqrt")))
    >>> [tick.met for tick in ticks("The logits are divided by the square root of the width.", [criterion])]
    [True]
    >>> [tick.why for tick in ticks("The logits are not divided by the square root.", [criterion])]
    ['“divided” is denied']
    """
    words, asked = _words(text), tuple(criteria)
    phrases = {phrase for criterion in asked for group in criterion.terms for phrase in group}
    covered = {at for phrase in phrases for first, last in _places(words, phrase) for at in range(first, last + 1)}
    prose = _prose(words, covered)
    return tuple(_tick(text, words, prose, criterion) for criterion in asked)


def _words(text: str) -> list[_Word]:
    ends, clauses = ([end.end() for end in pattern.finditer(text + " ")] for pattern in (_END, _CLAUSE))
    words: list[_Word] = []
    for match in _WORD.finditer(text):
        raw, start = match[0].lower().replace("’", "'"), match.start()
        meanings = frozenset(tuple(_stems(meaning)) for meaning in _NOTATION.get(re.sub(r"[^\w]", "", raw), ()))
        sentence, clause = bisect_right(ends, start), bisect_right(clauses, start)
        words.append(_Word(_stem(raw), raw, start, match.end(), sentence, clause, meanings))
    return words


def _stems(phrase: str) -> list[str]:
    return [_stem(match[0].lower()) for match in _WORD.finditer(phrase)]


def _tick(text: str, words: list[_Word], sentences: set[int], criterion: Criterion) -> Tick:
    def no(why: str, *spans: tuple[int, int]) -> Tick:
        return Tick(criterion.id, criterion.text, False, spans, why)

    for phrase in criterion.without:
        for first, last in _places(words, phrase):
            if not _denied(words, first, last):
                reason = message("it says “%(quote)s”", quote=_quote(text, words, first, last))
                return no(reason, (words[first].start, words[last].end))
    chosen: list[tuple[int, int]] = []
    for group in criterion.terms:
        places = [place for phrase in group for place in _places(words, phrase)]
        if not places:
            return no(message("nothing like: %(phrases)s", phrases=", ".join(group[:3])))
        fair = [place for place in places if not _denied(words, *place)]
        if not fair:
            return no(message("“%(quote)s” is denied", quote=_quote(text, words, *places[0])), _span(words, places[0]))
        prose = [place for place in fair if words[place[0]].sentence in sentences]
        if not prose:
            return no(message("keywords alone; say it in a sentence"), _span(words, fair[0]))
        after = [place for place in prose if not criterion.ordered or not chosen or place[0] > chosen[-1][1]]
        if not after:
            return no(
                message("“%(quote)s” comes too early", quote=_quote(text, words, *prose[0])), _span(words, prose[0])
            )
        chosen.append(min(after))
    return Tick(criterion.id, criterion.text, True, tuple(_span(words, place) for place in chosen))


def _places(words: Sequence[_Word], phrase: str) -> list[tuple[int, int]]:
    """Return (first, last) word of each place where the phrase occurs: in order, close together, in a sentence."""
    wanted = _stems(phrase)
    places = []
    for first, word in enumerate(words):
        if tuple(wanted) in word.meanings:
            places.append((first, first))
            continue
        if not wanted or not _means(word, wanted[0]):
            continue
        last = first
        for stem in wanted[1:]:
            near = range(last + 1, min(last + 2 + _GAP, len(words)))
            at = next((i for i in near if words[i].sentence == word.sentence and _means(words[i], stem)), None)
            if at is None:
                break
            last = at
        else:
            places.append((first, last))
    return places


def _means(word: _Word, stem: str) -> bool:
    return _alike(word.stem, stem) or (stem,) in word.meanings


def _alike(stem: str, other: str) -> bool:
    """Return whether two stems are equal, or differ by one typing error in a word of five letters or more."""
    return stem == other or (min(len(stem), len(other)) >= 5 and Levenshtein.distance(stem, other, score_cutoff=1) <= 1)


def _denied(words: Sequence[_Word], first: int, last: int) -> bool:
    """Return whether a negation comes shortly before the phrase in its clause. Two negations cancel."""
    clause = words[first].clause
    before = [word for word in words[max(0, first - _REACH) : first] if word.clause == clause]
    count = sum(word.raw in _DENIALS or word.raw.endswith("n't") for word in before)
    return count % 2 == 1


def _prose(words: Sequence[_Word], covered: set[int]) -> set[int]:
    """Return the sentences that have enough small words besides the wanted phrases, so are not lists of keywords."""
    length, small = Counter[int](), Counter[int]()
    for at, word in enumerate(words):
        length[word.sentence] += 1
        small[word.sentence] += word.raw in _SMALL and at not in covered
    return {sentence for sentence, count in length.items() if small[sentence] >= PROSE * count}


def _span(words: Sequence[_Word], place: tuple[int, int]) -> tuple[int, int]:
    return words[place[0]].start, words[place[1]].end


def _quote(text: str, words: Sequence[_Word], first: int, last: int) -> str:
    return text[words[first].start : words[last].end]
