"""Exchange with other programs: export proved packs, import questions as drafts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from clearhead.errors import OptionError, PackError
from clearhead.extras import needs
from clearhead.files import whole_file

with needs("course", "exchange with other programs"):
    from clearhead.course.exchange.csv_table import write_csv
    from clearhead.course.exchange.draft import write
    from clearhead.course.exchange.drafts import read
    from clearhead.course.exchange.gift.write import write_gift
    from clearhead.course.exchange.markup.inert import without_controls
    from clearhead.course.exchange.moodle.write import write_moodle
    from clearhead.course.exchange.qti import write_qti
    from clearhead.course.exchange.question import Question, questions
    from clearhead.course.exchange.report import Loss, Report
    from clearhead.course.pack.item import Pack
    from clearhead.course.pack.loader import find, load
    from clearhead.course.proofs.prove import prove_pack

Writer = Callable[[Sequence[Question], str, Path], None]


def _anki(exported: Sequence[Question], title: str, place: Path) -> None:
    with needs("course", "an Anki deck"):  # genanki is for this format alone
        from clearhead.course.exchange.anki.write import write_anki

    write_anki(exported, title, place)


# form -> (ending of its file, writer)
FORMS: Mapping[str, tuple[str, Writer]] = {
    "anki": (".apkg", _anki),
    "moodle": (".xml", write_moodle),
    "gift": (".gift", write_gift),
    "qti3": (".zip", partial(write_qti, version=3)),
    "qti2": (".zip", partial(write_qti, version=2)),
    "csv": (".csv", write_csv),
}


def export_pack(
    path: Path, form: str, place: Path | None = None, *, cache: Path | None = None, strict: bool = False,
    report: Report | None = None,
) -> tuple[Path, int]:  # fmt: skip
    """Prove a pack and write it in another program's format.

    Args:
        path: the pack's folder, or the name of a shipped pack.
        strict: write nothing if something cannot be carried over.
        report: collects what is not carried over.
    Returns:
        The file, and how many items it holds.
    Raises:
        OptionError: no such form. PackError: the pack, or one of its items, is wrong; or, with `strict`, a loss.
    """
    report = Report() if report is None else report
    if form not in FORMS:
        raise OptionError(f"no format {form!r}; expected one of {', '.join(FORMS)}")
    if place is not None and not place.parent.is_dir():
        raise OptionError(f"{place.parent} is not a folder; make it first, or give another path for the file")
    pack = load(find(path))
    outcomes = prove_pack(pack, cache=cache)
    wrong = next((outcome for outcome in outcomes if not outcome.ok), None)
    if wrong:
        file = str(pack.path / wrong.file)
        raise PackError(f"{wrong.error} (only a proved pack is exported)", file=file, line=wrong.line)
    ending, writer = FORMS[form]
    target = place or Path(f"{pack.id}-{form}{ending}")
    exported = questions(pack, [outcome.proved for outcome in outcomes if outcome.proved])
    report_losses(exported, form, report)
    if strict:
        report.refuse()
    with whole_file(target) as draft:
        writer(exported, without_controls(pack.title), draft)
    return target, len(exported)


def report_losses(exported: Sequence[Question], form: str, report: Report) -> None:
    """Record what the format cannot represent of these questions."""
    for question in exported:
        if form == "qti2" and question.hints:
            report.add(f"item {question.id}", "its hints (QTI 2.1 cannot hold them)")


def import_drafts(
    place: Path, path: Path, topic: str | None = None, *, strict: bool = False, report: Report | None = None,
    encoding: str | None = None,
) -> list[Path]:  # fmt: skip
    """Read another program's file and write its questions into the pack's `drafts/` folder.

    Args:
        strict: write nothing if something cannot be carried over.
        report: collects what is not carried over.
        encoding: of a text file, as in "windows-1252"; None for what the file shows itself, or UTF-8.
    Raises:
        PackError: the file or the pack cannot be read; or, with `strict`, a loss.
        OptionError: no such topic or encoding.
    """
    report = Report() if report is None else report
    pack: Pack = load(path)
    known = [known_topic.id for known_topic in pack.topics]
    if topic is not None and topic not in known:
        raise OptionError(f"the pack has no topic {topic!r}; expected one of {', '.join(known)}")
    drafts = read(place, report, encoding)
    if strict:
        report.refuse()
    return write(drafts, path, topic or known[0])


__all__ = ["FORMS", "Loss", "Question", "Report", "export_pack", "import_drafts", "questions"]
