"""Find mistakes in filled-in text: words that do not fit the numbers, and numbers that nobody would write.

Both are checked in proofs at every seed at which an item must hold.
"""

import ast
import re
from collections.abc import Iterator, Sequence

from clearhead.course.pack.item import Item
from clearhead.course.proofs.proved import Proved
from clearhead.errors import ProofError

# A word -> the number it says. "Doubled" is also what happens to a weight kept at a rate of a half.
_WORDS = {
    "only": 1.0, "single": 1.0, "pair": 2.0, "half": 2.0, "twofold": 2.0, "quarter": 4.0, "dozen": 12.0,
    "threefold": 3.0, "fourfold": 4.0, "fivefold": 5.0, "tenfold": 10.0,
    "twice": 2.0, "double": 2.0, "doubles": 2.0, "doubled": 2.0, "doubling": 2.0, "halved": 2.0, "halves": 2.0,
    "second": 2.0, "squared": 2.0, "both": 2.0, "two": 2.0,
    "thrice": 3.0, "triple": 3.0, "tripled": 3.0, "third": 3.0, "cubed": 3.0, "three": 3.0,
    "quadrupled": 4.0, "fourth": 4.0, "four": 4.0, "fifth": 5.0, "five": 5.0, "sixth": 6.0, "six": 6.0, "seven": 7.0,
    "eight": 8.0, "nine": 9.0, "ten": 10.0, "eleven": 11.0, "twelve": 12.0,
}  # fmt: skip
_MULTIPLES = frozenset(
    {"twice", "double", "doubles", "doubled", "doubling", "halved", "halves", "squared", "thrice", "triple", "tripled",
     "cubed", "quadrupled", "half", "quarter", "twofold", "threefold", "fourfold", "fivefold", "tenfold"}
)  # fmt: skip
_FRACTIONS = frozenset({"half", "quarter"})  # they count nothing: "half of the heads"
_ORDINALS = frozenset({"second", "third", "fourth", "fifth", "sixth"})
# What is counted -> names of variables that hold the number.
_COUNTED = {
    "word": "length", "token": "length", "position": "length", "place": "length", "text": "batch", "example": "batch",
    "wide": "width",
}  # fmt: skip
_WHOLE = frozenset({"all", "those", "these"})  # "all three" is said of a whole list
_WORD = re.compile(r"[a-z]+|(?<![\w.,])\d+(?:\.\d+)?(?![\w.,]?\d)(?:\s?%)?")
_ONE_IN = (["one", "in"], ["1", "in"], ["out", "of"])  # before a number of which one is a share
_CODE = re.compile(r"`[^`]*`|\$[^$]*\$|\{\{[^{}]*\}\}|\[[^\[\]]*\]\([^()]*\)")
_GAP = "gap"  # replaces code or a value
_NOUNS = 2  # words after a counting word that are searched for the noun it counts
_LONG = re.compile(r"(?<![\w.])-?\d+\.(?:\d{9,}|0*[1-9]\d{6,})(?!\d)")  # 0.19999999999999996, 0.33333334
_ZEROS = re.compile(r"(?<![\w.])-?0\.0{5,}(?![\d.])")  # 0.0000000: nothing, to seven places
_EXPONENT = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?e[-+]?\d+(?!\w)")  # 2e-21
_MINUS_ZERO = re.compile(r"(?<![\w.)\]])-0(?:\.0*)?(?![\w.])")
_UNGROUPED = re.compile(r"(?<![\w.,])\d{5,}(?![\w.,]*\d)")  # 262144
_ONE_OF_MANY = re.compile(
    r"(?<![\w.,/×*+−-])1 (?:heads|keys|queries|places|words|tokens|layers|texts|positions|numbers|pairs|steps|bytes|"
    r"weights|rows|columns|values|documents|examples|patches|copies|parameters)\b"
)
_WHOLE_AS_FRACTION = re.compile(
    r"(?<![\w.,])\d+\.0+(?: ?%| (?:heads?|keys?|queries|query|places?|words?|tokens?|layers?|texts?|rows?|columns?|"
    r"times|steps?|bytes|parameters)\b)"
)
_AS_A_PROGRAM = re.compile(r"\b(?:tensor|array|np\.(?:float|int)\d+)\([\[\d.-]")
_FENCED = re.compile(r"^(`{3,}|~{3,}).*?^\1", re.DOTALL | re.MULTILINE)
_SHARE = r"(?:0?\.\d{1,4}|[01](?:\.0+)?)"
_ROW = re.compile(
    rf"[\[(]\s*({_SHARE}(?:(?:\s*,\s*|\s+){_SHARE})+)\s*[\])]"  # [0.33, 0.67], and as numpy prints it
    # 0.33, 0.33 and 0.33
    rf"|(?<![\w.,\[(-])(?<![,d] )(0?\.\d+(?:(?:\s*[,|]\s*|,? and )0?\.\d+){{2,}})(?![\w\]),]|\.\d)"
)
_PERCENT = r"\d{1,2}(?:\.\d+)? ?%"
_PERCENTS = re.compile(rf"(?<![\w.,])(?<![,d] ){_PERCENT}(?:(?:,? and |\s*[,|]\s*){_PERCENT}){{2,}}(?!,? (?:and )?\d)")
_NEAR = 0.016  # a row that should sum to one and was rounded to two or three places is no further away

_PRINTED = (
    (_EXPONENT, "{}; write it out, or as a power of ten"),
    (_MINUS_ZERO, "{}; add 0.0 before it is printed"),
)
_SENTENCE = (
    (_UNGROUPED, "{} in a sentence; write {{{{name:,}}}}"),
    (_ONE_OF_MANY, "'{}'; draw two or more"),
    (_WHOLE_AS_FRACTION, "'{}'; a whole number is written without a point"),
    (_AS_A_PROGRAM, "'{}…' in a sentence; write the numbers, or set it as code"),
)


def check_wording(item: Item, proofs: Sequence[Proved]) -> None:
    """Raise ProofError where a text says a number that another seed changes, or shows one that nobody would write.

    Args:
        proofs: of the item, at its own seed first and then at others.
    """
    for proved in proofs:
        for text, sentence in _texts(proved):
            odd = odd_number(text, sentence)
            if odd:
                raise ProofError(f"with seed {proved.receipt.seed}: {odd}", file=item.file, line=1)
        row = uneven_row(proved.stem)
        if row:
            raise ProofError(f"with seed {proved.receipt.seed}: {row}", file=item.file, line=1)
    for name, text, line in _prose(item):
        stale = stale_word(text, proofs)
        if stale:
            raise ProofError(f"{name} {stale}", file=item.file, line=line)


def stale_word(text: str, proofs: Sequence[Proved]) -> str:
    """Return why this prose, as the author wrote it, does not fit the numbers of every seed; "" if it does.

    A multiple ("doubled") is compared with every value that is shown; a count ("the two heads", "6 heads") with the
    values whose name shares a word with what is counted; "all three" with the length of every list.
    """
    words = _WORD.findall(_CODE.sub(f" {_GAP} ", text).lower())
    for at, word in enumerate(words):
        share = word.endswith("%")
        meant = float(word[:-1]) / 100 if share else float(word) if word[0].isdigit() else _WORDS.get(word)
        if meant is None:
            continue
        counted = words[at + 1 : at + 1 + _NOUNS]
        counted = counted[: counted.index(_GAP)] if _GAP in counted else counted
        counted = [] if share or word in _FRACTIONS else counted
        of_all = at > 0 and words[at - 1] in _WHOLE and word not in _ORDINALS
        multiple = share or word in _MULTIPLES or words[at + 1 : at + 2] == ["times"]
        multiple = multiple or words[max(at - 2, 0) : at] in _ONE_IN
        for name in proofs[0].values:
            shown = [proved.values.get(name, "") for proved in proofs]
            if (multiple and _is_multiple(name)) or _names(name, counted):
                read = [_read(value) for value in shown]
            elif of_all:
                read = [_length(value) for value in shown]
            else:
                continue
            other = next((value for value, numbers in zip(shown, read, strict=True) if meant not in numbers), None)
            if other is not None and any(meant in numbers for numbers in read):
                fits = next(value for value, numbers in zip(shown, read, strict=True) if meant in numbers)
                return f"says {word!r}, and {{{{{name}}}}} is {fits} at one seed and {other} at another"
    return ""


def odd_number(text: str, sentence: bool = True) -> str:
    """Return which number of this text nobody would write, and why; "" if there is none.

    Args:
        sentence: True for prose, where large numbers are grouped and "1 places" is wrong; False for program output.

    >>> odd_number("a weight of 0.19999999999999996")
    'shows 0.19999999999999996; round it'
    >>> odd_number("the sum is 0.0000000"), odd_number("0.25 of 1,000")
    ('shows 0.0000000, which says nothing; show more places, or 0', '')
    >>> odd_number("the smallest was 3e-08"), odd_number("Behind it come 1 places.")
    ('shows 3e-08; write it out, or as a power of ten', "shows '1 places'; draw two or more")
    """
    for pattern, problem in ((_LONG, "{}; round it"), (_ZEROS, "{}, which says nothing; show more places, or 0")):
        if match := pattern.search(text):
            return "shows " + problem.format(match[0])
    prose = _CODE.sub(" ", _FENCED.sub(" ", text))
    for pattern, problem in _PRINTED + (_SENTENCE if sentence else ()):
        if match := pattern.search(prose):
            return "shows " + problem.format(match[0])
    return ""


def uneven_row(stem: str) -> str:
    """Return which row of shares in a stem does not sum to one because of rounding; "" if none does.

    >>> uneven_row("The weights are `[0.33, 0.33, 0.33]`.")
    'shows the row [0.33, 0.33, 0.33], which sums to 0.99; choose numbers that sum to 1'
    """
    for pattern, whole in ((_ROW, 1), (_PERCENTS, 100)):
        for row in pattern.finditer(stem):
            total = sum(map(float, re.findall(r"\d*\.?\d+", row[0])))
            if 1e-9 < abs(total / whole - 1) < _NEAR:
                return f"shows the row {row[0]}, which sums to {total:.4g}; choose numbers that sum to {whole}"
    return ""


def _is_multiple(name: str) -> bool:
    """Whether a value's name says that something is multiplied or scaled by it."""
    return bool(set(name.split("_")) & {"times", "factor", "longer", "rate", "t", "temperature", "scale", "power"})


def _names(name: str, counted: Sequence[str]) -> bool:
    """Whether the name of a value is what is counted: `heads`, `keys_count` for "two heads", "second key"."""
    stems = {part.rstrip("s") for part in name.split("_") if len(part) > 2}
    nouns = [word.rstrip("s") for word in counted]
    return any(noun in stems or _COUNTED.get(noun) in stems for noun in nouns)


def _length(value: str) -> set[float]:
    """The length of a list, for "all three"; empty for anything else."""
    try:
        items = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return set()
    return {float(len(items))} if isinstance(items, list | tuple) else set()


def _read(value: str) -> set[float]:
    """Return the numbers that words may give for a value: itself, and for a share what it divides or multiplies by."""
    try:
        number = float(value)
    except ValueError:
        return set()
    if 0 < number < 1:
        return {number, round(1 / number, 6), round(1 / (1 - number), 6)}
    return {number}


def _prose(item: Item) -> Iterator[tuple[str, str, int]]:
    """Yield (name, text, line) of every part that all variants share, except the rule, which is general."""
    if item.title:
        yield "the title", item.title, item.lines.get("title", 1)
    for section in item.sections:
        if section.name not in ("Rule", "Programs", "Criterion"):
            yield f"`## {section.name} {section.argument}`".replace(" `", "`"), section.text, section.line


def _texts(proved: Proved) -> Iterator[tuple[str, bool]]:
    """Yield (text, whether it is prose) for everything a learner reads."""
    printed = proved.kind in ("predict", "tune", "order", "match")
    yield from ((text, True) for text in (proved.stem, proved.back, proved.rule, proved.pitfalls, *proved.hints))
    yield from ((text, True) for text in proved.rationales.values())
    yield proved.answer, not printed and proved.kind not in ("worked", "debug", "code")
    for option in proved.options:
        yield option.rationale, True
        if proved.kind not in ("debug", "code"):  # there these are programs, and what a failing test said of them
            yield from ((text, not printed) for text in (option.text, option.counterexample))
    for step in proved.steps:
        yield from ((step.text, True), (step.result, False))
