"""Anki's packages and text exports: made by Anki itself where its package is here, and written by hand."""

import csv
import json
import sqlite3
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from clearhead.course.exchange.anki.cards import gaps
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError

NOTES = [
    ("Basic", ["What is <b>softmax</b>?", 'exp, then divide<br><img src="map.png">'], ["one"]),
    ("Basic (and reversed card)", ["front \\(x_1 &lt; 2\\)", "back<br>side"], []),
    ("Basic (optional reversed card)", ["f1", "b1", ""], []),
    ("Basic (optional reversed card)", ["f2", "b2", "y"], []),
    ("Cloze", ["{{c1::Paris::city}} is in {{c2::France, {{c1::Europe}}}}, see [sound:a.mp3]", "extra"], []),
]
EXPECTED = [
    ("What is **softmax**?", "exp, then divide  \n[picture: map.png]"),
    ("front $x_1 < 2$", "back  \nside"),
    ("back  \nside", "front $x_1 < 2$"),
    ("f1", "b1"),
    ("f2", "b2"),
    ("b2", "f2"),
    ("[city] is in France, […], see [sound a.mp3]", "**Paris** is in France, **Europe**, see [sound a.mp3]\n\nextra"),
    ("Paris is in […], see [sound a.mp3]", "Paris is in **France, Europe**, see [sound a.mp3]\n\nextra"),
]


def sides(found: list[Draft]) -> list[tuple[str, str]]:
    return [(one.stem, one.back.replace("  \nextra", "\n\nextra")) for one in found]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Any:
    anki = pytest.importorskip("anki.collection", reason="the `anki` package, which makes what we read, is not here")
    mine = anki.Collection(str(tmp_path_factory.mktemp("anki") / "c.anki2"))
    deck = mine.decks.id("Kites::Big")
    for name, values, tags in NOTES:
        note = mine.new_note(mine.models.by_name(name))
        note.fields, note.tags = list(values), tags
        mine.add_note(note, deck)
    yield mine
    mine.close()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_package_that_anki_made(collection: Any, legacy: bool, tmp_path: Path) -> None:
    from anki.collection import ExportAnkiPackageOptions

    place, report = tmp_path / "deck.apkg", Report()
    options = ExportAnkiPackageOptions(with_scheduling=False, with_media=True, legacy=legacy)
    assert collection.export_anki_package(out_path=str(place), options=options, limit=None) == len(NOTES)
    with zipfile.ZipFile(place) as package:
        assert ("collection.anki21b" in package.namelist()) is not legacy
    found = read(place, report)
    assert sides(found) == EXPECTED
    origin = dict(found[0].origin)
    assert (origin["deck"], origin["note type"], origin["tags"]) == ("Kites::Big", "Basic", "one")
    assert [str(loss) for loss in report.losses] == [
        "deck.apkg, note 1: picture map.png",
        "deck.apkg, note 5: sound a.mp3",
    ]


def test_a_whole_collection_that_anki_made(collection: Any, tmp_path: Path) -> None:
    place = tmp_path / "all.colpkg"
    collection.export_collection_package(str(place), include_media=False, legacy=False)
    collection.reopen()
    assert sides(read(place)) == EXPECTED


@pytest.mark.parametrize("columns", [True, False])
def test_a_text_that_anki_made(collection: Any, columns: bool, tmp_path: Path) -> None:
    place = tmp_path / "notes.txt"
    some = dict.fromkeys(("with_tags", "with_deck", "with_notetype", "with_guid"), columns)
    collection.export_note_csv(out_path=str(place), limit=None, with_html=True, **some)
    found = read(place)
    assert (found[0].stem, found[0].back) == EXPECTED[0]
    if columns:
        assert sides(found) == EXPECTED
        assert dict(found[0].origin)["deck"] == "Kites::Big"


def test_without_zstandard_it_says_how_to_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "a.apkg", "w") as package:
        package.writestr("collection.anki21b", b"\x28\xb5\x2f\xfd")
        package.writestr("collection.anki2", b"")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(PackError, match=r"`Support older Anki versions`, or `pip install 'clearhead\[course\]'`"):
        read(tmp_path / "a.apkg")


def test_fields_that_no_card_shows(tmp_path: Path) -> None:
    template = {
        "name": "Card",
        "qfmt": "{{Front}} {{#Hint}}({{Hint}}){{/Hint}}{{^Hint}}no hint{{/Hint}}",
        "afmt": "{{FrontSide}}<hr id=answer>{{Back}}",
    }
    model = {
        "name": "Mine",
        "type": 0,
        "flds": [{"name": one} for one in ("Front", "Back", "Hint", "Id", "Long")],
        "tmpls": [template],
    }
    connection = sqlite3.connect(tmp_path / "c.db")
    connection.execute("CREATE TABLE notes (id integer primary key, guid text, mid integer, tags text, flds text)")
    connection.execute("CREATE TABLE col (models text, decks text)")
    connection.execute("INSERT INTO col VALUES (?, ?)", (json.dumps({"5": model}), "{}"))
    rows = [
        (1, "g", 5, "", "a\x1fb\x1f\x1fid-1\x1f" + "x" * 300),
        (2, "h", 5, "", "c\x1fd\x1fhere\x1f\x1f"),
        (3, "i", 5, "", "\x1fe\x1f\x1f\x1f"),
        (4, "j", 5, "", "k\x1fl\x1f\x1f\x1f\x1fmore"),
        (5, "m", 5, "", b"blob\xff"),
        (6, "n", 5, "", None),
    ]
    connection.executemany("INSERT INTO notes VALUES (?, ?, ?, ?, ?)", rows)
    connection.commit()
    connection.close()
    with zipfile.ZipFile(tmp_path / "a.apkg", "w") as package:
        package.write(tmp_path / "c.db", "collection.anki21")
    report = Report()
    found = read(tmp_path / "a.apkg", report)
    assert [(one.stem, one.back) for one in found] == [("a no hint", "b"), ("c (here)", "d"), ("k no hint", "l")]
    assert dict(found[0].origin)["Id"] == "id-1"
    assert [str(loss) for loss in report.losses] == [
        "a.apkg, note 1: field Long, which no card shows",
        "a.apkg, note 3: a note whose cards ask nothing",
        "a.apkg, note 4: fields after the 5 that its note type 'Mine' has",
        "a.apkg, note 5: fields that are not text",
        "a.apkg, note 6: fields that are not text",
    ]


@pytest.mark.parametrize(
    ("text", "number", "asked", "answered"),
    [
        ("{{c1::a}} b {{c2::c}}", 1, "[…] b c", "<b>a</b> b c"),
        ("{{c1::a::say it}} b", 1, "[say it] b", "<b>a</b> b"),
        ("{{c1::a}} {{c1::b}}", 1, "[…] […]", "<b>a</b> <b>b</b>"),
        ("{{c1::a {{c2::b}} c}}", 1, "[…]", "<b>a b c</b>"),
        ("{{c1::a {{c2::b}} c}}", 2, "a […] c", "a <b>b</b> c"),
        ("{{c1,2::a}} b", 2, "[…] b", "<b>a</b> b"),
        ("{{c1::std::vector}}", 1, "[vector]", "<b>std</b>"),
        ("{{c1::\\(x^{a}\\)}} }}", 1, "[…] }}", "<b>\\(x^{a}\\)</b> }}"),
        ("{{c1::a", 1, "{{c1::a", "{{c1::a"),
        ("{{c1::a::b", 1, "{{c1::a::b", "{{c1::a::b"),
        ("x {{c1::a {{c2::b::c}} d::e f", 2, "x {{c1::a [c] d::e f", "x {{c1::a <b>b</b> d::e f"),
    ],
)
def test_gaps(text: str, number: int, asked: str, answered: str) -> None:
    assert gaps(text, number, answered=False) == asked
    assert gaps(text, number, answered=True) == answered


def notes(folder: Path, text: str, name: str = "notes.txt") -> tuple[list[tuple[str, str]], list[str]]:
    place, report = folder / name, Report()
    place.write_text(text, encoding="utf-8", newline="")
    return [(one.stem, one.back) for one in read(place, report)], [str(loss) for loss in report.losses]


@pytest.mark.parametrize(
    ("name", "separator"),
    [
        ("tab", "\t"),
        ("Comma", ","),
        ("Semicolon", ";"),
        ("Space", " "),
        ("Pipe", "|"),
        ("Colon", ":"),
        (",", ","),
        ("|", "|"),
        ("\t", "\t"),
        ("\\t", "\t"),
        ("¦", "¦"),
    ],
)
def test_separators(tmp_path: Path, name: str, separator: str) -> None:
    found, losses = notes(tmp_path, f'#separator:{name}\n#html:false\n"one, two"{separator}three\n')
    assert (found, losses) == ([("one, two", "three")], [])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('front,"a, b"\n', ("front", "a, b")),
        ('front;"a; b, c"\n', ("front", "a; b, c")),
        ("what, then; why\tback\n", ("what, then; why", "back")),
        ('"a; b",back\r\n', ("a; b", "back")),
        ("Question;Answer\nwhat;that\n", ("what", "that")),
        ("#separator:comma\na;b,c\n", ("a;b", "c")),
    ],
)
def test_a_csv_of_another_program(tmp_path: Path, text: str, fields: tuple[str, str]) -> None:
    place = tmp_path / "notes.csv"
    place.write_text(text, encoding="utf-8", newline="")
    (one,) = read(place)
    assert (one.stem, one.back) == fields


def test_columns_that_are_no_fields(tmp_path: Path) -> None:
    head = "#separator:tab\n#html:true\n#tags column:1\n#guid column:3\n#deck:Kites\n#notetype:Basic\n#columns:Tags\tFront\tGuid\tBack\n"
    place = tmp_path / "notes.txt"
    place.write_text(f"{head}wind sun\tWhat?\tg~1\tWind\n")
    (one,) = read(place)
    assert one == Draft("", "What?", "Wind")
    assert dict(one.origin) == {
        "imported from": "notes.txt:8", "deck": "Kites", "note type": "Basic", "tags": "wind sun", "guid": "g~1",
    }  # fmt: skip


def test_lines_inside_quotes(tmp_path: Path) -> None:
    text = '#html:false\n# a remark\n\n"vector<int> a;\n\n# then\n  b ""c"";\n"\t"1\n2"\n#remark\nbefore\u2028after\u0085\x0b\tx\r\nlonely\n'
    found, losses = notes(tmp_path, text)
    assert found[0] == ('```text\nvector<int> a;\n\n# then\n  b "c";\n```', "1  \n2")
    assert found[1][0].startswith("before\u2028after")
    assert losses == ["notes.txt:12: a line with one field only: 'lonely'"]


@pytest.mark.parametrize(
    ("field", "html", "markdown"),
    [
        ("vector<int> & a_b", "false", "vector<int> & a_b"),
        ("<b>x</b> &lt;", "false", "<b>x</b> \\&lt;"),
        ("<b>x</b> &lt; vector<int>", "true", "**x** < vector<int>"),
        ("a*b*c", "false", "a\\*b\\*c"),
        ("costs $5 and $6", "true", "costs \\$5 and \\$6"),
        ("x is $x_1$", "true", "x is $x_1$"),
        (r"\(a\) \[b\] [latex]c[/latex] [$]d[/$] [$$]e[/$$] $$f$$", "true", "$a$ $$b$$ $c$ $d$ $$e$$ $$f$$"),
        (r"[latex]$a$[/latex] [latex]\begin{displaymath}b\end{displaymath}[/latex]", "true", "$a$ $$b$$"),
        (r'<anki-mathjax block="true">a &lt; b</anki-mathjax>', "true", "$$a < b$$"),
        (r"\[a<br>b\] <code>\(x\)</code>", "true", "$$a\nb$$ `\\(x\\)`"),
        (r"\(a", "true", r"\\(a"),
        ('<a href="http://a.de/?x=$1&y=$2">there</a>', "true", "[there](http://a.de/?x=$1&y=$2)"),
        ("2<sup>10</sup> x<sub>i</sub>", "true", "2${}^{10}$ x${}_{i}$"),
        ("<div>one</div><div>two</div>", "true", "one\n\ntwo"),
        ("a&nbsp;<ul><li>b<li>c</ul>", "true", "a\n\n- b\n- c"),
        ("<ul><li>a</li><ul><li>b</li></ul></ul>", "true", "- a\n  - b"),
        ("<font><div>a</div><div>b</div></font>", "true", "a\n\nb"),
        ("<span>a <pre>x<br>  y</pre></span>", "true", "a\n\n```\nx\n  y\n```"),
        (
            "<table><caption>c</caption><tr><td>a<td>b|<tr><td>d</table>",
            "true",
            "c\n\n| a | b\\| |\n| --- | --- |\n| d |  |",
        ),
        ("<table><tr>loose</table>", "true", "loose"),
    ],
)
def test_fields(tmp_path: Path, field: str, html: str, markdown: str) -> None:
    found, losses = notes(tmp_path, f"#html:{html}\nQ\t{field}\n")
    assert (found, losses) == ([("Q", markdown)], [])


@pytest.mark.parametrize(
    ("field", "markdown"),
    [
        ("if a<b and c>d?", "if a<b and c>d?"),
        ("x<s or y>t, i<p and q>0", "x<s or y>t, i<p and q>0"),
        ('<b class="x">a</b> <ol reversed><li>one</li></ol>', "**a**\n\n1. one"),
    ],
)
def test_a_comparison_is_not_a_tag(tmp_path: Path, field: str, markdown: str) -> None:
    place = tmp_path / "notes.txt"
    place.write_text(f"#html:true\n{field}\tback\n", encoding="utf-8")
    (one,) = read(place)
    assert one.stem == markdown


def test_links_that_run_programs_are_listed(tmp_path: Path) -> None:
    found, losses = notes(
        tmp_path, "#html:true\nQ\t<a href='javascript:x()'>a</a><svg><path/></svg><script>x</script>\n"
    )
    assert found == [("Q", "a")]
    assert losses == ["notes.txt:2: link to javascript:x()", "notes.txt:2: picture", "notes.txt:2: script"]


def test_a_bank_keeps_its_count(tmp_path: Path) -> None:
    rows = [[f"Q{at}\n<pre>{'x' * (at % 7)}\n</pre>", f'"{at}"'] for at in range(997)]
    place = tmp_path / "bank.txt"
    with place.open("w", newline="") as file:
        file.write("#separator:Semicolon\n#html:true\n")
        csv.writer(file, delimiter=";", lineterminator="\n").writerows(rows)
    found = read(place)
    assert [one.back for one in found] == [row[1] for row in rows]
