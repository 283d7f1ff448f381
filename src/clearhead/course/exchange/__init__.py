"""Exchange with other programs: a proved pack goes out, questions come in as drafts."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from clearhead.course.exchange.drafts import read, write
from clearhead.course.exchange.gift import write_gift
from clearhead.course.exchange.moodle import write_moodle
from clearhead.course.exchange.qti import write_qti
from clearhead.course.exchange.question import Question, questions
from clearhead.course.exchange.table import write_csv
from clearhead.course.item import Pack
from clearhead.course.pack import load
from clearhead.course.prove import prove_pack
from clearhead.errors import OptionError, PackError
from clearhead.extras import needs

Writer = Callable[[Sequence[Question], str, Path], None]


def _anki(found: Sequence[Question], title: str, place: Path) -> None:
    with needs("studio", "an Anki deck"):  # genanki is for this format alone
        from clearhead.course.exchange.anki import write_anki

    write_anki(found, title, place)


# form -> (ending of its file, writer)
FORMS: Mapping[str, tuple[str, Writer]] = {
    "anki": (".apkg", _anki),
    "moodle": (".xml", write_moodle),
    "gift": (".gift", write_gift),
    "qti3": (".zip", partial(write_qti, version=3)),
    "qti2": (".zip", partial(write_qti, version=2)),
    "csv": (".csv", write_csv),
}


def export_pack(path: Path, form: str, place: Path | None = None, *, cache: Path | None = None) -> tuple[Path, int]:
    """Prove a pack and write it in another program's format.

    Returns:
        The file, and how many items it holds.
    Raises:
        OptionError: no such form. PackError: the pack, or one of its items, is wrong.
    """
    if form not in FORMS:
        raise OptionError(f"no format {form!r}; expected one of {', '.join(FORMS)}")
    pack = load(path)
    outcomes = prove_pack(pack, cache=cache)
    wrong = next((one for one in outcomes if not one.ok), None)
    if wrong:
        raise PackError(f"{wrong.error} (only a proved pack is exported)", file=wrong.file, line=wrong.line)
    ending, writer = FORMS[form]
    target = place or Path(f"{pack.id}-{form}{ending}")
    found = questions(pack, [one.proved for one in outcomes if one.proved])
    writer(found, pack.title, target)
    return target, len(found)


def import_drafts(place: Path, path: Path, topic: str | None = None) -> list[Path]:
    """Read another program's file and write its questions into the pack's `drafts/` folder.

    Raises:
        PackError: the file or the pack cannot be read. OptionError: the pack has no such topic.
    """
    pack: Pack = load(path)
    known = [one.id for one in pack.topics]
    if topic is not None and topic not in known:
        raise OptionError(f"the pack has no topic {topic!r}; expected one of {', '.join(known)}")
    return write(read(place), path, topic or known[0])


__all__ = ["FORMS", "Question", "export_pack", "import_drafts", "questions"]
