"""Every text of the pictures and of the Lens can be translated: each is marked, and each reaches the page."""

import json
import re
from pathlib import Path

import pytest
from tools import messages

from clearhead import studio, views
from clearhead.views.page import es_module
from clearhead.views.page.html import page
from views.fake import reading

FOLDERS = (Path(views.__file__).parent, Path(studio.__file__).parent)
MODULES = [*sorted(FOLDERS[0].glob("static/*.js")), FOLDERS[1] / "static" / "lens.js"]


# Names of classes and of a file format, and lines of the program that a picture offers to copy.
SAME = re.compile(r"\d+: (Parquet|(ch(-[\w${}\[\]]+)* ?)+|from clearhead import capture(, views)?|weights = reading.*)")


@pytest.mark.parametrize("file", MODULES, ids=lambda file: file.name)
def test_no_text_is_untranslated(file: Path):
    found = messages.bare(file.read_text(encoding="utf-8"))
    assert [text for text in found if not SAME.fullmatch(text)] == []


def test_the_texts_reach_a_catalog():
    texts = {text for _, _, text in messages.messages("page")}
    assert {"Pin to compare", "Strongest links of this head", "%(count)s tokens", "Copied"} <= texts
    assert {
        "how evenly queries look: 0 at one key, 1 at all keys equally",
        "previous token",
    } <= texts  # from views/score_tables.py


@pytest.mark.browser
def test_a_page_with_words_of_its_own_is_spoken_in_them(browser, tmp_path):
    marked = {text: f"⟦{text}⟧" for _, _, text in messages.messages("page")}
    words = json.dumps(marked, ensure_ascii=False).replace("<", "\\u003c")
    content = page(reading(["I", "saw", "a", "kite"], layers=2, heads=2), layer=1, head=0)
    file = tmp_path / "page.html"
    file.write_text(content.replace("<body>", f'<body><template id="words">{words}</template>'), encoding="utf-8")
    opened = browser.new_page()
    opened.set_default_timeout(10_000)
    opened.goto(file.as_uri())
    opened.locator(".ch-table summary").click()
    opened.locator(".ch-line-query [data-token='2']").focus()
    assert opened.locator(".ch-head h2").inner_text() == "⟦Layer 1, head 0⟧"
    assert opened.locator(".ch-list h3").inner_text() == "⟦“a” looks at⟧"
    said = opened.locator(".ch").evaluate(
        """(root) => {
            const texts = [];
            const walk = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) if (!walk.currentNode.parentElement.closest("pre, canvas")) texts.push(walk.currentNode.data);
            for (const node of root.querySelectorAll("[aria-label], [title]")) texts.push(node.ariaLabel ?? "", node.title);
            return texts;
        }"""
    )
    opened.close()
    assert [text for text in said if re.search(r"[^\W\d_]", without_marked(text))] == []


def without_marked(text):
    """What is left beside the texts in brackets, one inside another, and tokens and names, which are nobody's words."""
    while (less := re.sub(r"⟦[^⟦⟧]*⟧|layer\.\d\.attention|\b(I|saw|a|kite)\b", "", text)) != text:
        text = less
    return text


def test_one_module_holds_the_words_once():
    assert es_module.one_module().count("function _(") == 1
    assert "import {" not in es_module.one_module()
