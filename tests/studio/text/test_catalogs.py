"""A catalog is made, filled in and spoken; without one, the studio speaks English."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tools import messages

from clearhead.studio.text import translation
from studio.conftest import Visitor


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    yield
    translation._spoken.set(None)
    for remembered in (translation.languages, translation.catalog):
        if hasattr(remembered, "cache_clear"):
            remembered.cache_clear()


@pytest.mark.slow
def test_a_catalog_is_made_filled_in_and_spoken(
    visitor: Visitor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {
        text for _, _, found in messages.messages("studio") for text in ([found] if isinstance(found, str) else found)
    }
    assert {"How it looks", "just now", "January", "%(count)s questions", "strong", "Not here"} <= texts
    assert {"As it stands it prints", "Step %(step)s gives %(result)s."} <= texts
    monkeypatch.setattr(messages, "LOCALE", tmp_path / "locale")
    monkeypatch.setattr(translation, "CATALOGS", tmp_path / "locale")
    assert messages.write_template("studio").read_text().count("msgid") > 300
    for domain, text, there in (("studio", "How it looks", "Aussehen"), ("page", "Copied", "Kopiert")):
        place = messages.update("de", domain)
        place.write_text(place.read_text().replace(f'msgid "{text}"\nmsgstr ""', f'msgid "{text}"\nmsgstr "{there}"'))
        messages.update("de", domain)
    for remembered in (translation.languages, translation.catalog):
        remembered.cache_clear()
    visitor.post("/settings", theme="system", clock="1", language="de")
    page = visitor.get("/settings")
    assert 'lang="de"' in page
    assert "Aussehen" in page
    assert '{"Copied": "Kopiert"}' in page.replace("&#34;", '"')
    visitor.post("/settings", theme="system", clock="1", language="xx", status=422)


def test_an_unknown_language_is_english() -> None:
    assert translation.languages() == ("en",)
    translation.use_language("xx")
    assert translation.many("%(count)s day", "%(count)s days", 3) == "3 days"
    assert translation.for_modules("xx") == {}
