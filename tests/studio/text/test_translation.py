"""Every text of the studio can be translated: each is marked in its template, program or ES module, and all reach a
catalog."""

import ast
import gettext
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from jinja2 import nodes
from starlette.testclient import TestClient
from tools import messages

from clearhead import sandbox
from clearhead.course import KINDS, Page, Proved
from clearhead.course.proofs.messages import LEADS
from clearhead.studio.app.application import create
from clearhead.studio.explore.experiments import routes as experiments
from clearhead.studio.explore.experiments.programs import EXPERIMENTS
from clearhead.studio.explore.experiments.routes import Row
from clearhead.studio.library.library import Library, fill
from clearhead.studio.text import translation
from clearhead.studio.web import rendering as pages
from clearhead.studio.web.settings import Settings
from studio.conftest import START, Visitor
from studio.practice.test_kinds import PACK as GOOD
from studio.practice.test_kinds import of_kind, question
from studio.practice.test_kinds import right as right_fields
from studio.practice.test_kinds import wrong as wrong_fields

STUDIO = Path(pages.__file__).parents[1]
TEMPLATES = sorted(str(file.relative_to(STUDIO / "templates")) for file in (STUDIO / "templates").rglob("*.html"))
SPOKEN = ("aria-label", "alt", "title", "placeholder")
# What is the same in every language: the name, keys of the keyboard, letters and signs of formulas.
SAME = re.compile(
    r"Clearhead|PyTorch|Lens|Control\+|Esc|Enter|Ctrl|Space|all-MiniLM-L6-v2|MiniLM|\b[A-Za-z]\b|^[\w.+-]*/[\w./?=&-]*$"
)
ENGLISH = messages.ENGLISH
GETTEXT = {"_", "mark", "many", "message", "gettext", "ngettext"}
# Modules below the studio whose refusals a learner meets in the Lens.
REFUSING = (
    "capture/models/writing.py",
    "local_models/names.py",
    "local_models/chat_model.py",
    "capture/models/folders.py",
    "capture/models/loading.py",
    "capture/models/reading.py",
    "capture/models/input_checks.py",
    "capture/media/sound.py",
    "capture/media/pictures.py",
    "views/checks.py",
)
# Modules that speak in the terminal, or to the author of a pack: in English, like every command.
TERMINAL = {
    "accounts/accounts",
    "accounts/names",
    "accounts/users",
    "app/serving",
    "learner/database",
    "learner/migrate",
    "library/library",
    "library/page_outputs",
    "text/mathml",
    "text/mathml_symbols",
    "web/settings",
}
PROGRAMS = sorted(
    name
    for file in STUDIO.rglob("*.py")
    if (name := str(file.relative_to(STUDIO).with_suffix(""))) not in TERMINAL and "migrations" not in file.parts
)
MODULES = sorted(
    file.name for file in (STUDIO / "static").glob("*.js") if file.name not in ("lens.js", "codemirror.js")
)  # tests/views reads it
# What is no text of the studio: headers, sentences that the Lens reads, words of the course.
UNREAD = re.compile(
    r"(?s).*(default-src|no-cache|prefers-color|filename=|^not all$|Clearhead studio|^Not Found$|^(The animal|Paris is|the lighthouse|The capital|When Mary|Why is the sky|SmolLM2)"
    r"|^(PyTorch|Self-attention|Cross-attention|Multi-head|Long range)$|\nimport |^import )"
)


VOID = {"meta", "link", "input", "br", "hr", "img"}
UNSAID = {"kbd", "code", "pre", "textarea", "script", "style", "mono", "said"}  # tags, and two classes


class Texts(HTMLParser):
    """What a reader of a page would see or hear, but for programs, what they print, and what he wrote himself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: list[tuple[str, set[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self._inside.append((tag, {tag, *(dict(attrs).get("class") or "").split()}))
        self.found += [value for name, value in attrs if name in SPOKEN and value]

    def handle_endtag(self, tag: str) -> None:
        if any(tag == one for one, _ in self._inside):
            while self._inside.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not any(UNSAID & names for _, names in self._inside):
            self.found.append(data)


def spoken(text: str) -> bool:
    return bool(re.search(r"[^\W\d_]{2}", SAME.sub("", text.strip())))


def bare(node: nodes.Node) -> Iterator[str]:
    """The texts below a node that no call of gettext holds."""
    for child in node.iter_child_nodes():
        if isinstance(child, nodes.Call) and getattr(child.node, "name", "") in ("_", "gettext", "ngettext"):
            yield from (text for keyword in child.kwargs for text in bare(keyword))
        elif isinstance(child, (nodes.Filter, nodes.Test)):
            yield from bare(nodes.Output([child.node]) if child.node else nodes.Output([]))
        elif isinstance(child, nodes.Const) and isinstance(child.value, str):
            if ENGLISH.search(child.value):
                yield child.value
        else:
            yield from bare(child)


def literal(node: nodes.Node) -> str:
    """The markup of a template as written, without what is filled in."""
    return "".join(text.data for text in node.find_all(nodes.TemplateData))


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_text_of_a_template_is_untranslated(name: str) -> None:
    tree = pages._TEMPLATES.parse((STUDIO / "templates" / name).read_text())
    found = [text.strip() for text in Texts(literal(tree)).found if spoken(text)]
    found += [text for text in bare(tree) if spoken(text)]
    assert not found, f"{name}: put these into {{% trans %}} or _(): {found}"


def texts(node: ast.AST) -> Iterator[str]:
    """The English texts below a node of a program that no call of gettext holds; no docstring, no annotation."""
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            if name in ("annotation", "returns") or not isinstance(child, ast.AST):
                continue
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                continue
            if isinstance(child, ast.Call) and ast.unparse(child.func).startswith("LOG."):
                continue  # for the terminal, in English
            if isinstance(child, ast.Call) and getattr(child.func, "id", "") in GETTEXT:
                yield from (text for keyword in child.keywords for text in texts(keyword))
            elif isinstance(child, ast.Constant) and isinstance(child.value, str):
                said = re.sub(r"<[^>]*>?", "", child.value)
                if ENGLISH.search(said) and not UNREAD.match(child.value):
                    yield child.value
            else:
                yield from texts(child)


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_text_of_a_program_is_untranslated(name: str) -> None:
    found = list(texts(ast.parse((STUDIO / f"{name}.py").read_text())))
    assert not found, f"{name}.py: put these into _(), many() or mark(): {found}"


FORMAT = re.compile(r"\d+: Parquet")  # a name, the same in every language


@pytest.mark.parametrize("name", MODULES)
def test_no_text_of_a_module_is_untranslated(name: str) -> None:
    found = [text for text in messages.bare((STUDIO / "static" / name).read_text()) if not FORMAT.fullmatch(text)]
    assert not found, f"{name}: put these into _(): {found}"


def test_the_check_sees_what_it_should() -> None:
    page = '<p title="A name">Text {{ _("fine") }} {{ "Bare one" if x else y }}{% trans %}Also fine{% endtrans %}</p>'
    tree = pages._TEMPLATES.parse(page)
    assert [text.strip() for text in Texts(literal(tree)).found if spoken(text)] == ["A name", "Text"]
    assert list(bare(tree)) == ["Bare one"]
    program = """def f(x: "Context") -> "Context":
        'A docstring.'
        many("one day", "some days", 3, of="a bare one")
        LOG.warning("for the terminal")
        return _("fine here"), f"not {x} so fine", "Bare", "lower", "not so"
    """
    assert list(texts(ast.parse(program))) == ["a bare one", " so fine", "Bare", "not so"]
    module = 'say(_("Two words"), "Two words"); tag.className = "quiet small"; `${x} two words`; page.closest("a, b")'
    assert messages.bare(module) == ["1: Two words", "1: ${x} two words"]


class Marked(gettext.NullTranslations):
    """A language in which every text is in brackets; what is filled in stands outside them."""

    def gettext(self, message: str) -> str:
        return f"⟦{VALUE.sub(lambda found: f'⟧{found[0]}⟦', message)}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)


VALUE = re.compile(r"%\(\w+\)s")


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "_ENGLISH", Marked())
    monkeypatch.setattr(translation, "catalog", lambda *_: Marked())


def plain(page: str) -> list[str]:
    """The words of a page that are in no bracket, in the alphabet of English."""
    seen = " ".join(Texts(page).found)
    while (less := re.sub(r"⟦[^⟦⟧]*⟧", " · ", seen)) != seen:
        seen = less
    return re.findall(r"[A-Za-z]{2,}[^·\n]{0,40}", OF_THE_PACK.sub("", SAME.sub("", seen)))


# The words of a pack in another alphabet: what is left in that of English is the studio's own.
GREEK = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "ΑΒΨΔΕΦΓΗΙΞΚΛΜΝΟΠΘΡΣΤΘΩΣΧΥΖαβψδεφγηιξκλμνοπθρστθωςχυζ"
)
KEPT_AS_IT_IS = re.compile(r"(```.*?```|~~~.*?~~~|`[^`]*`|\$[^$]*\$|\]\([^)]*\))", re.S)
PROSE = {
    "text",
    "result",
    "stem",
    "rule",
    "back",
    "hints",
    "pitfalls",
    "rationales",
    "belief",
    "rationale",
    "counterexample",
}


# What a pack says that is none of its prose: concepts, columns of a table, titles of tests, what Python raises.
OF_THE_PACK = re.compile(
    r"[Ll]ogits|\bmean(, average|\(xs\))|\bmedian\b|\bsize\b|\bdistance\b|the mean of (2 and 4 is 3|nothing is 0)(: it is None)?|NameError.*"
)


def greek(text: str) -> str:
    """Markdown with its words in Greek letters, but for programs, formulas, addresses and sentences of grading."""
    parts = [
        part if number % 2 else "\n\n".join(one if one in LEADS else one.translate(GREEK) for one in part.split("\n\n"))
        for number, part in enumerate(KEPT_AS_IT_IS.split(text))
    ]
    return "".join(parts)


def foreign(value: object, prose: bool = False) -> Any:
    """The same, as a proof keeps it: whatever is prose in it."""
    if isinstance(value, str):
        return greek(value) if prose else value
    if isinstance(value, dict):
        if value.get("kind") == "explain":
            value = {**value, "answer": greek(value["answer"])}
        return {key: foreign(one, prose or key in PROSE) for key, one in value.items()}
    return [foreign(one, prose) for one in value] if isinstance(value, (list, tuple)) else value


def abroad(library: Library) -> Library:
    """A library whose packs are in another language, with a page for each mode, and a figure."""
    (pack,) = library.packs
    topic = pack.topics[0]
    pages = {mode: Page(mode, greek(f"## Words\n\nOf {mode}."), f"{mode}.md") for mode in ("read", "why", "recall")}
    topic = replace(topic, title=greek(topic.title), summary=greek(topic.summary), pages=pages)
    items = {
        id: replace(item, title=greek(item.title or id), concepts=("logits",), variants=False)
        for id, item in pack.items.items()
    }
    proved = {id: Proved.from_json(foreign(one.to_json())) for id, one in library.proved.items()}
    others = tuple(replace(one, title=greek(one.title), summary=greek(one.summary)) for one in pack.topics[1:])
    beliefs = {id: greek(one) for id, one in pack.misconceptions.items()}
    pack = replace(
        pack, title=greek(pack.title), summary=greek(pack.summary), topics=(topic, *others), items=items,
        misconceptions=beliefs,
    )  # fmt: skip
    return Library((pack,), proved)


@pytest.mark.slow
@pytest.mark.usefixtures("marked")
@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")
def test_every_mode_says_everything_in_the_language_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = abroad(fill([GOOD], tmp_path / "proofs"))
    monkeypatch.setattr(
        experiments, "measure", lambda one, _: iter([Row(x, defaultdict(lambda: [0.5])) for x in one.points])
    )
    app = create(Settings(data=tmp_path), library)
    app.state.context.now = lambda: START
    wrong: dict[str, list[str]] = {}

    def look(where: str, page: str) -> str:
        if found := plain(page.replace(str(tmp_path), "")):
            wrong[where] = found
        return page

    with TestClient(app, base_url="http://127.0.0.1") as client:
        visitor, topic = Visitor(client, app.state.context), "/topics/good/basics"
        look("first visit", visitor.get("/"))
        for kind in KINDS:
            for said, fields in (("wrong", wrong_fields), ("right", right_fields)):
                page = look(f"{kind} asked", visitor.get(f"/items/{of_kind(library, kind)}"))
                visitor.later(seconds=5)
                put = question(visitor, page)
                if put.form != "card":
                    look(f"{kind} lacking", visitor.post("/answer", status=422, ticket=visitor.ticket(page)))
                if put.hints:
                    look(f"{kind} hint", visitor.post("/help", ticket=visitor.ticket(page), hint="true"))
                if put.form == "explain":
                    look("explain confirm", visitor.post("/answer", ticket=visitor.ticket(page), text="ΑΒΓ"))
                look(f"{kind} {said}", visitor.post("/answer", ticket=visitor.ticket(page), **fields(put)))
        for mode in ("", "/read", "/why", "/walk", "/walk?causal=1&heads=4", "/sheet", "/recall", "/practice", "/build",
                     "/mistakes", "/test", "/challenge", "/try", "/practice?focus=hard", "/nope"):  # fmt: skip
            look(f"mode {mode}", client.get(f"{topic}{mode}").text)
        for name in EXPERIMENTS:
            look(f"experiment {name}", visitor.get(f"{topic}/experiment?name={name}&run=true&guess=1"))
        for prediction in ("", "9", "1 / 0"):
            look("try run", visitor.post(f"{topic}/try", item=of_kind(library, "predict"), prediction=prediction))
        look("try raised", visitor.post(f"{topic}/try", item=of_kind(library, "predict"), program="1 / 0"))
        for mode, clock in (("test", ""), ("challenge", "?clock=2")):
            address = f"{topic}/{mode}/{uuid.uuid4()}{clock}"
            page = visitor.get(address)
            while 'name="ticket"' in page:
                look(mode, page)
                visitor.post("/answer", ticket=visitor.ticket(page), **wrong_fields(question(visitor, page)))
                page = visitor.get(address)
            look(f"{mode} report", page)
        visitor.later(days=2)
        for address in ("/", "/review", "/review?focus=logits", "/progress", "/settings", "/search?q=ΑΒΓ", "/search?q=α",
                        "/offline", "/items/00", "/attempts/00"):  # fmt: skip
            look(address, client.get(address).text)
    assert not wrong, "\n".join(f"{where}: {found}" for where, found in wrong.items())


@pytest.mark.usefixtures("marked")
@pytest.mark.parametrize(
    ("asked", "values"),
    [
        ({"text": "α" * 600, "model": "induction"}, ("601", "induction", "512", "89")),
        ({"text": " ", "model": "induction"}, ()),
        ({"text": "α", "model": "/α/β"}, ("/α/β",)),
        ({"text": "α", "model": "FOLDER"}, ("FOLDER",)),
        ({"text": "α", "model": "FOLDER/file"}, ("FOLDER/file",)),
    ],
    ids=["too long", "empty", "no model", "no model in it", "a file"],
)
def test_the_lens_refuses_in_the_language_asked_for(
    visitor: Visitor, tmp_path: Path, asked: dict[str, str], values: tuple[str, ...]
) -> None:
    (tmp_path / "file").touch()
    asked = {name: value.replace("FOLDER", str(tmp_path)) for name, value in asked.items()}
    refused = visitor.client.get("/lens/data", params=asked)
    assert refused.status_code == 422
    said = refused.json()["error"]
    left = re.sub(r"⟦[^⟦⟧]*⟧", " ", said).split()
    assert left == [value.replace("FOLDER", str(tmp_path)) for value in values]
    assert escape(said) in visitor.get(f"/lens?{urlencode({**asked, 'plain': 1})}")


@pytest.mark.parametrize("name", REFUSING)
def test_every_refusal_of_the_lens_can_be_translated(name: str) -> None:
    raised = [node for node in ast.walk(ast.parse((STUDIO.parent / name).read_text())) if isinstance(node, ast.Raise)]
    assert raised
    found = [text for node in raised for text in texts(node)]
    assert not found, f"{name}: put these into message(): {found}"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for remembered in (translation.languages, translation.catalog):
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()
