"""Every text of the studio can be said in another language: none stands bare in a template, all reach a catalog."""

import gettext
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import nodes
from tools import messages

from clearhead.studio import language, pages
from studio.conftest import Visitor
from studio.test_pages import TOPIC, answer

STUDIO = Path(pages.__file__).parent
TEMPLATES = sorted(str(file.relative_to(STUDIO / "templates")) for file in (STUDIO / "templates").rglob("*.html"))
SPOKEN = ("aria-label", "alt", "title", "placeholder")
# What is the same in every language: the name, keys of the keyboard, letters and signs of formulas.
SAME = re.compile(r"Clearhead|Lens|Control\+|Esc|Enter|Ctrl|Space|all-MiniLM-L6-v2|\b[A-Za-z]\b|^[\w.+-]*/[\w./?=&-]*$")
# An English text rather than a name in the code: two words, or one with a capital.
ENGLISH = re.compile(r"[a-z,.;:]{2,} [a-z]{2,}|^[A-Z][a-z]+")


class Texts(HTMLParser):
    """What a reader of a page would see or hear."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside.append(tag)
        self.found += [value for name, value in attrs if name in SPOKEN and value]

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"kbd", "code", "script", "style"} & set(self._inside):
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
def test_no_text_stands_bare_in_a_template(name: str) -> None:
    tree = pages._TEMPLATES.parse((STUDIO / "templates" / name).read_text())
    found = [text.strip() for text in Texts(literal(tree)).found if spoken(text)]
    found += [text for text in bare(tree) if spoken(text)]
    assert not found, f"{name}: put these into {{% trans %}} or _(): {found}"


def test_the_check_sees_what_it_should() -> None:
    page = '<p title="A name">Text {{ _("fine") }} {{ "Bare one" if x else y }}{% trans %}Also fine{% endtrans %}</p>'
    tree = pages._TEMPLATES.parse(page)
    assert [text.strip() for text in Texts(literal(tree)).found if spoken(text)] == ["A name", "Text"]
    assert list(bare(tree)) == ["Bare one"]


class Marked(gettext.NullTranslations):
    """A language in which every text is in brackets."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "_PLAIN", Marked())
    monkeypatch.setattr(language, "catalog", lambda *_: Marked())


@pytest.mark.usefixtures("marked")
def test_pages_say_everything_in_the_language_asked_for(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0", sure="true")
    ours = ("/", "/progress", "/settings", "/search?q=zebra", f"{TOPIC}/test", f"{TOPIC}/challenge", TOPIC, "/review")
    course = "|".join(re.escape(text) for text in ("One head, step by step", "Logits, weights, output.", "Attention"))
    course += (
        r"|Scal\w+( of logits)?|Logits|Softmax|Mend the mask|Which hold|What is [\w ]+|A topic with.*|Comes later."
    )
    for address in ours:
        page = visitor.get(address)
        seen = " ".join(Texts(page).found)
        while (less := re.sub(r"⟦[^⟦⟧]*⟧", "", seen)) != seen:
            seen = less
        left = SAME.sub("", re.sub(course, "", seen))
        assert not re.findall(r"[^\W\d_]{3,}", left.replace(str(visitor.desk.settings.data), "")), address


def test_a_catalog_is_made_filled_in_and_spoken(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        text for _, _, found in messages.messages("studio") for text in ([found] if isinstance(found, str) else found)
    }
    assert {"Keep these", "just now", "January", "%(count)s questions", "strong", "Not here"} <= texts
    for file in ("templates", "static"):
        (tmp_path / file).symlink_to(STUDIO / file)
    monkeypatch.setattr(messages, "STUDIO", tmp_path)
    monkeypatch.setattr(language, "CATALOGS", tmp_path / "locale")
    for domain, text, there in (("studio", "Keep these", "Das behalten"), ("page", "Copied", "Kopiert")):
        place = messages.update("de", domain)
        place.write_text(place.read_text().replace(f'msgid "{text}"\nmsgstr ""', f'msgid "{text}"\nmsgstr "{there}"'))
        messages.update("de", domain)
    for remembered in (language.languages, language.catalog):
        remembered.cache_clear()
    visitor.post("/settings", theme="system", clock="1", language="de")
    page = visitor.get("/settings")
    assert 'lang="de"' in page
    assert "Das behalten" in page
    assert '{"Copied": "Kopiert"}' in page.replace("&#34;", '"')
    visitor.post("/settings", theme="system", clock="1", language="xx", status=422)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    for remembered in (language.languages, language.catalog):
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()


def test_an_unknown_language_is_english() -> None:
    assert language.languages() == ("en",)
    language.speak("xx")
    assert language.many("%(count)s day", "%(count)s days", 3) == "3 days"
    assert language.for_modules("xx") == {}
