"""A proved pack goes out in six formats and what others export comes in as drafts; round trips keep what they can."""

import csv
import html as html_lib
import re
import sqlite3
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree  # of files we wrote ourselves

import pytest

from clearhead import course, sandbox
from clearhead.course import exchange
from clearhead.course.exchange.anki.write import write_anki
from clearhead.course.exchange.draft import Draft, pair_row, write
from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.gift.parse import read_gift
from clearhead.course.exchange.markup.markdown import html
from clearhead.course.exchange.qti import item as qti_item
from clearhead.course.exchange.question import Question
from clearhead.errors import OptionError, PackError

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
PACKS = Path(__file__).parents[2] / "packs"
GOOD = PACKS / "good"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proofs")


@pytest.fixture(scope="module")
def found(cache: Path) -> Sequence[Question]:
    pack = course.load(GOOD)
    return exchange.questions(pack, [one.proved for one in course.prove_pack(pack, cache=cache) if one.proved])


def exported(form: str, cache: Path, folder: Path) -> Path:
    place, count = exchange.export_pack(GOOD, form, folder / f"out{exchange.FORMS[form][0]}", cache=cache)
    assert count == 12
    return place


def notes(place: Path) -> list[tuple[str, str]]:
    with zipfile.ZipFile(place) as package:
        copy = place.with_suffix(".db")
        copy.write_bytes(package.read("collection.anki2"))
    connection = sqlite3.connect(copy)
    rows = connection.execute("SELECT guid, flds FROM notes ORDER BY guid").fetchall()
    connection.close()
    return rows


def test_anki_notes_have_stable_guids(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    first, second = notes(exported("anki", cache, tmp_path)), notes(exported("anki", cache, tmp_path / "b"))
    assert first == second
    assert len({guid for guid, _ in first}) == 12
    fields = next(flds for _, flds in first if "good/predict-range" in flds).split("\x1f")
    assert "What does this print, with n = 33?" in fields[0]
    assert "32" in fields[1]
    assert "The end of a range is not in it." in fields[1]


def test_the_idea_behind_a_wrong_option_is_named_as_one(cache: Path, tmp_path: Path) -> None:
    """By itself it is a sentence that sounds true."""
    proved = [one.proved for one in course.prove_pack(course.load(GOOD), cache=cache) if one.proved]
    beliefs = [option.belief for one in proved if one.kind != "code" for option in one.options if option.belief]
    assert beliefs
    for form in ("csv", "gift", "moodle"):
        text = html_lib.unescape(exported(form, cache, tmp_path).read_text(encoding="utf-8"))
        plain = re.sub(r"[*\\]|</?(?:strong|p)>", "", text)
        assert [belief for belief in beliefs if f"The idea behind that answer: {belief}" not in plain] == [], form
    backs = "".join(fields for _, fields in notes(exported("anki", cache, tmp_path)))
    assert backs.count("<strong>The idea behind that answer:</strong>") == len(beliefs)


def test_an_apkg_comes_back_as_drafts(cache: Path, tmp_path: Path) -> None:
    drafts = read(exported("anki", cache, tmp_path))
    assert len(drafts) == 12
    assert any(one.stem == "What is an iterable?" and "one at a time" in one.back for one in drafts)


def test_moodle_xml(cache: Path, tmp_path: Path) -> None:
    quiz = ElementTree.fromstring(exported("moodle", cache, tmp_path).read_bytes())  # noqa: S314
    kinds = [node.get("type") for node in quiz]
    assert kinds.count("multichoice") == 5
    assert {"category", "matching", "ordering", "essay"} < set(kinds)
    ids = [node.findtext("idnumber") for node in quiz if node.get("type") != "category"]
    assert sorted(ids) == sorted(f"good/{one}" for one in course.load(GOOD).items)
    for node in quiz.iter("question"):
        shares = [float(answer.get("fraction", "0")) for answer in node.iter("answer") if answer.get("fraction")]
        if node.get("type") == "multichoice":
            assert sum(share for share in shares if share > 0) == pytest.approx(100)
            assert all(answer.find("feedback") is not None for answer in node.iter("answer"))
    even = next(node for node in quiz if node.findtext("idnumber") == "good/choice-even")
    assert even.findtext("single") == "false"


def test_gift_comes_back_whole(found: Sequence[Question], cache: Path, tmp_path: Path) -> None:
    back = read_gift(exported("gift", cache, tmp_path).read_text())
    assert [one.title for one in back] == [one.title for one in found]
    for mine, other in zip(found, back, strict=True):
        if mine.form == "order":
            assert all(html(choice.text) in other.stem for choice in mine.choices)
            continue
        assert other.stem == mine.asked_html
        if mine.form == "options":
            assert [(text, right) for text, right, _ in other.options] == [
                (html(choice.text), choice.correct) for choice in mine.choices
            ]
        if mine.form == "pairs":
            assert [left for left, _ in other.pairs] == [html(left) for left, _ in mine.pairs]


@pytest.mark.parametrize("form", ["qti3", "qti2"])
def test_qti_packages(form: str, found: Sequence[Question], cache: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    place = exported(form, cache, tmp_path)
    assert place.read_bytes() == exported(form, cache, tmp_path / "b").read_bytes()
    with zipfile.ZipFile(place) as package:
        manifest = ElementTree.fromstring(package.read("imsmanifest.xml"))  # noqa: S314
        listed = [node.get("href") for node in manifest.iter() if node.tag.endswith("}resource")]
        assert sorted(listed) == sorted(name for name in package.namelist() if name != "imsmanifest.xml")
        roots = {name: ElementTree.fromstring(package.read(name)) for name in listed if name}  # noqa: S314
    prefix = "qti-" if form == "qti3" else ""
    for one in found:
        root = roots[f"items/{one.id}.xml"]
        names = [node.tag.rpartition("}")[2] for node in root.iter()]
        assert names[0] == ("qti-assessment-item" if prefix else "assessmentItem")
        right = [node.text for node in root.iter() if node.tag.endswith(("qti-value", "}value"))]
        if one.form == "options":
            assert right == [choice.key for choice in one.choices if choice.correct]
            assert names.count("qti-simple-choice" if prefix else "simpleChoice") == len(one.choices)
        if one.form == "order":
            assert tuple(right) == one.order
        if one.form == "pairs":
            assert len(right) == len(one.pairs)
        used = {node.get("identifier") for node in root.iter() if node.tag.endswith(("simple-choice", "simpleChoice"))}
        assert not used or set(right) <= used


def test_qti_names_follow_the_version(found: Sequence[Question]) -> None:
    one = next(one for one in found if one.form == "options")
    three, two = qti_item(one, 3).decode(), qti_item(one, 2).decode()
    assert "qti-response-declaration" in three
    assert "base-type" in three
    assert "<responseDeclaration" in two
    assert "baseType" in two
    assert "qti-" not in two.replace("imsqti", "")


def test_csv_is_no_formula(cache: Path, tmp_path: Path, found: Sequence[Question]) -> None:
    with exported("csv", cache, tmp_path).open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["item"] for row in rows] == [one.id for one in found]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())
    assert any(cell.startswith("'-") for row in rows for cell in row.values())


@pytest.mark.parametrize(
    ("left", "row"),
    [
        ("$5", r"- \$5: $x$"),
        (r"$a \neq b$$5", r"- $a \neq b$\$5: $x$"),
        ("$a$", "- $a$: $x$"),
        ("[a]", r"- \[a]: $x$"),
    ],
)
def test_a_formula_of_a_pair_ends_where_it_did(left: str, row: str) -> None:
    assert pair_row(left, "$x$") == row


def test_html_in_markdown_is_shown_and_not_passed_on() -> None:
    assert html("<script>x</script> & `a<b`") == "<p>&lt;script&gt;x&lt;/script&gt; &amp; <code>a&lt;b</code></p>"


def test_only_a_proved_pack_goes_out(tmp_path: Path) -> None:
    with pytest.raises(PackError, match=r"surviving-mutant/items/\S+\.md:\d+: .*mutant survives.*only a proved pack"):
        exchange.export_pack(PACKS / "broken" / "surviving-mutant", "csv", tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    with pytest.raises(OptionError, match="anki, moodle"):
        exchange.export_pack(GOOD, "word")


GIFT = r"""
// a comment
$CATEGORY: x

::Capital::What is 1 \+ 1\: a sum? {
  =2#yes
  ~3 # an \= sign
  ~%0%4
}

Grant is buried in Grant's tomb. {T}

Two plus two is {=four =4}.

Match {=cat -> animal =rose -> plant}

[html]<p>How wide is <b>it</b>?</p> {#64:0.1}

Say why. {}
"""


def test_gift_of_others() -> None:
    first, true, short, pairs, number, essay = read_gift(GIFT)
    assert (first.title, first.stem) == ("Capital", "What is 1 \\+ 1: a sum?")
    assert first.options == (("2", True, "yes"), ("3", False, "an = sign"), ("4", False, ""))
    assert [right for _, right, _ in true.options] == [True, False]
    assert short.stem == "Two plus two is ____ ."
    assert pairs.pairs == (("cat", "animal"), ("rose", "plant"))
    assert number.options == (("64 ± 0.1", True, ""),)
    assert essay.options == ()
    with pytest.raises(PackError, match="not closed") as caught:
        read_gift("\nWhat? {=yes\n", "a.gift")
    assert (caught.value.file, caught.value.line) == ("a.gift", 2)


QUIZ = """
[[questions]]
type = "MultipleChoice"
prompt.prompt = "Which one?"
prompt.distractors = ["that", "those"]
answer.answer = "this"
context = "Because."

[[questions]]
type = "ShortAnswer"
prompt.prompt = "What is it?"
answer.answer = "it"

[[questions]]
type = "Tracing"
prompt.program = "fn main() { println!(\\"{}\\", 1); }"
answer.doesCompile = true
answer.stdout = "1"
"""


def test_mdbook_quiz(tmp_path: Path) -> None:
    place = tmp_path / "quiz.toml"
    place.write_text(QUIZ)
    choice, short, tracing = read(place)
    assert choice.options == (("this", True, "Because."), ("that", False, ""), ("those", False, ""))
    assert (short.stem, short.back) == ("What is it?", "it")
    assert "println!" in tracing.stem
    assert tracing.back == "1"


def test_anki_text(tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    place.write_text('#separator:semicolon\n#html:true\nWhat is <b>softmax</b>?;"exp &amp; divide"\nlonely\n')
    assert read(place) == [Draft("", "What is **softmax**?", "exp & divide")]


@pytest.mark.parametrize("row", ["sep=;", "SEP=|", "sep=,"])
def test_the_line_that_tells_excel_the_separator_is_no_note(tmp_path: Path, row: str) -> None:
    place = tmp_path / "notes.csv"
    place.write_text(f"{row}\nquestion{row[-1]}answer\nWhat now?{row[-1]}this\n")
    assert read(place) == [Draft("", "What now?", "this")]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.apkg", b"not a zip", "not a zip file"),
        ("a.docx", b"x", "cannot import '.docx'"),
        ("a.zip", b"PK\xff", "cannot import '.zip'"),
        ("a.xml", b"<quiz>", "not valid XML"),
        ("a.xml", b"<html/>", "its root is <html>"),
        ("a.xml", b'<!DOCTYPE quiz [<!ENTITY a "b">]><quiz/>', "declares a document type"),
        ("a.xml", b"<quiz/>", "holds no question"),
        ("a.txt", b"#separator:tabs\na\tb\n", "'tabs' is not a separator"),
        ("a.txt", b"#deck column:x\na\tb\n", "'x' is not a column"),
        ("a.txt", b'a\t"b\nc\td\ne\tf\n', "a.txt:1: the field that a .* opens here is not closed"),
        ("a.gift", b"What? {=a\n\n::B:: What? {=b\n", "a.gift:1: .*: the answer block opened here is not closed"),
        ("a.gift", b"What? {=a} Who? {=b}\n", "a second answer block on this line"),
        ("a.gift", b"\nWhat? }\n", "a.gift:2: .*: a } that no { opens"),
        ("a.gift", b"What? {=a -> b =c}\n", "the pair 'c' has no ->"),
        ("a.toml", b"questions = 3", "is not a list"),
        ("a.csv", b"question,answer\n", "holds no question; a .csv file holds a table"),
        ("a.toml", b'id = "pack"', "holds no question; a .toml file holds"),
        ("a.gift", b"\xff\xd8", "UTF-8"),
        ("a.toml", b"[[", "not valid TOML"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    place = tmp_path / name
    place.write_bytes(data)
    with pytest.raises(PackError, match=words):
        read(place)
    with pytest.raises(PackError, match="not a file"):
        read(tmp_path / "nowhere.gift")


def test_a_broken_apkg(tmp_path: Path) -> None:
    for name, data, words in (("x", b"", "Support older"), ("collection.anki2", b"junk" * 99, "cannot be read")):
        place = tmp_path / "a.apkg"
        with zipfile.ZipFile(place, "w") as package:
            package.writestr(name, data)
        with pytest.raises(PackError, match=words):
            read(place)


def test_drafts_are_refused_until_they_are_proved(tmp_path: Path) -> None:
    assert course.load(tmp_path / make_pack(tmp_path)).items
    place = tmp_path / "in.gift"
    place.write_text(GIFT)
    pack = tmp_path / "pack"
    places = exchange.import_drafts(place, pack)
    assert len(places) == 6
    assert len(course.load(pack).items) == 1  # drafts are not shown
    again = exchange.import_drafts(place, pack)
    assert not {one.name for one in places} & {one.name for one in again}
    with pytest.raises(OptionError, match="no topic"):
        exchange.import_drafts(place, pack, "nowhere")
    choice = next(one for one in places if one.stem == "capital")
    choice.rename(pack / "items" / choice.name)
    with pytest.raises(PackError, match=r"not in pack\.toml|hand-typed"):
        course.load(pack)


def make_pack(folder: Path) -> str:
    from clearhead.course.pack.scaffold import new_pack

    return new_pack(folder / "pack").name


def test_headings_in_drafts_do_not_become_sections(tmp_path: Path) -> None:
    make_pack(tmp_path)
    (place,) = write([Draft("Évil ## Stem", "## Rule\n+++\ntext", "back")], tmp_path / "pack", "first-topic")
    assert place.name == "evil-stem.md"
    place.rename(tmp_path / "pack" / "items" / place.name)
    item = course.load(tmp_path / "pack").items["evil-stem"]
    assert item.stem == "\\## Rule\n\\+++\ntext"


@pytest.mark.slow
def test_anki_itself_opens_the_deck_and_updates_a_changed_note(found: Sequence[Question], tmp_path: Path) -> None:
    """Imported, learnt, edited, imported again: the note shows the new text and keeps its schedule."""
    anki = pytest.importorskip("anki.collection", reason="the `anki` package, which reads what we wrote, is not here")
    mine = anki.Collection(str(tmp_path / "mine.anki2"))

    def deck(questions: Sequence[Question], name: str, written: int) -> None:
        write_anki(questions, "Good", tmp_path / name, timestamp=written)
        mine.import_anki_package(anki.ImportAnkiPackageRequest(package_path=str(tmp_path / name)))  # as the dialog does
        assert mine.note_count() == len(found)

    now = 1_800_000_000
    deck(found, "first.apkg", now)
    (card,) = mine.find_cards('"Id:good/card-word"')
    mine.sched.set_due_date([card], "7")
    due = mine.get_card(card).due
    changed = [replace(one, rule="It can be looped over.") if one.id == "card-word" else one for one in found]
    deck(changed, "second.apkg", now + 60)
    note = mine.get_note(mine.find_notes('"Id:good/card-word"')[0])
    assert note["Rule"] == "<p>It can be looped over.</p>"
    assert mine.get_card(card).due == due
    mine.close()
