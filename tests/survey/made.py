"""Models and texts of these tests."""

from pathlib import Path

import numpy as np

from clearhead.capture import Loaded, load

# Of many lengths, with repeats, numbers, punctuation, letters that take several bytes; one of a single word.
TEXTS = [
    "the cat sat on the mat",
    "a",
    "one, two; three: 4, 5 and 67!",
    "say it again, say it again, say it again",
    "an entirely different sentence that goes on for quite a while, and then for a while more, until it ends",
    "0.5 + 0.25 = 0.75",
    "ab ab ab ab",
    "the animal did not cross the street because it was too tired",
    "words words words",
    "it's a “quoted” word",
    "x y z",
]
# How far a statistic of a text in a batch may be from that of the text alone: both have float32 sums of up to some hundred
# terms, in another order.
CLOSE = 128 * float(np.finfo(np.float32).eps)


def induction() -> Loaded:
    """The small causal model that ships with the package: two layers, one token per character."""
    return load("induction")


def write_lines(place: Path, copies: int = 1) -> Path:
    """A file of the texts, a line each, each copy a little different."""
    path = place / "texts.txt"
    lines = [text + " again" * (copy % 3) for copy in range(copies) for text in TEXTS]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a survey."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
