"""Import questions of other programs as drafts: items without a proof.

Drafts go to the pack's `drafts/` folder, where nothing displays them. The checks of a draft raise until the author
writes them, so `clearhead check` refuses the item in `items/` until its answer is computed.
"""

from pathlib import Path

from clearhead.course.exchange.anki.package import read_package
from clearhead.course.exchange.anki.text import read_notes
from clearhead.course.exchange.csv_table import is_table, read_csv
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.gift.drafts import from_gift
from clearhead.course.exchange.gift.parse import read_gift
from clearhead.course.exchange.limits import read_text
from clearhead.course.exchange.markup.inert import without_controls
from clearhead.course.exchange.mdbook_quiz import read_quiz
from clearhead.course.exchange.moodle.read import read_moodle
from clearhead.course.exchange.report import Report
from clearhead.errors import OptionError, PackError

_SHOWN = 5  # losses that the error for a file without a question lists
_NOTES = "notes as Anki exports them as text: two fields a line, with a tab or what a line #separator: names between"
# File suffix -> what is read from such a file.
HOLDS = {
    ".apkg": "notes of two fields or more",
    ".colpkg": "notes of two fields or more",
    ".gift": "questions in Moodle's GIFT",
    ".xml": "questions in Moodle XML",
    ".toml": "[[questions]] of mdbook-quiz",
    ".txt": _NOTES,
    ".tsv": _NOTES,
    ".csv": "a table that `clearhead export` wrote, or two fields a line, with a comma, semicolon or tab between",
}


def read(place: Path, report: Report | None = None, encoding: str | None = None) -> list[Draft]:
    """Read a file by its suffix, one of HOLDS. A .csv is a table that `export` wrote, or notes.

    Args:
        report: collects what is not carried over.
        encoding: of a text file; None for what the file shows itself, or UTF-8.
    Raises:
        OptionError: no such encoding, or one for a file that is not text.
        PackError: it cannot be read, with the line if one is known; or it holds no question.
    """
    if not place.is_file():
        raise PackError(f"{place} is not a file")
    ending = place.suffix.lower()
    if ending not in HOLDS:
        raise PackError(f"cannot import {place.suffix or place.name!r}; expected one of {', '.join(HOLDS)}")
    report = Report() if report is None else report
    drafts = [without_controls(draft) for draft in _read(place, ending, report, encoding)]
    if not drafts and report.losses:
        lost = "\n".join(f"  {loss}" for loss in report.losses[:_SHOWN])
        raise PackError(f"holds nothing that a draft can hold. Not carried over:\n{lost}", file=place.name)
    if not drafts:
        raise PackError(f"holds no question; a {ending} file holds {HOLDS[ending]}", file=place.name)
    return drafts


def _read(place: Path, ending: str, report: Report, encoding: str | None) -> list[Draft]:
    if ending in (".apkg", ".colpkg"):
        if encoding is not None:
            raise OptionError(f"an encoding was given, and a {ending} says its own. Leave out --encoding.")
        return read_package(place, report)
    text = read_text(place, encoding)
    if ending == ".gift":
        questions = read_gift(text, place.name, report)
        return [from_gift(parsed, f"{place.name}:{parsed.line}", report) for parsed in questions]
    if ending == ".xml":
        return [from_gift(parsed, where, report) for where, parsed in read_moodle(text, place.name, report)]
    if ending == ".toml":
        return read_quiz(text, place.name, report)
    if ending == ".csv" and is_table(text):
        return read_csv(text, place.name, report)
    return read_notes(text, place.name, report)
