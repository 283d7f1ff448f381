"""The live figures of the site: pages that the product itself writes, of real models, and the studio's Walk."""

import re
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from clearhead import capture
from clearhead.views.page.html import page

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT / "src/clearhead/views", ROOT / "src/clearhead/studio/static", Path(__file__))
STATIC = ROOT / "src/clearhead/studio/static"
ANIMAL = "The animal didn't cross the street because it was too tired"
WIDE = "The animal didn't cross the street because it was too wide"
TWICE = "the lighthouse keeper wrote: the lighthouse keeper"

WALK = """<!doctype html>
<html lang="en" class="scripted" data-keys="off">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}
@media (prefers-color-scheme: dark) {{ {dark} }}
body {{ padding: 1rem; }}</style>
</head>
<body><main id="main">{main}</main>
<script type="module">{module}</script>
</body>
</html>
"""


@cache
def _read(text: str, model: str | None) -> capture.Reading:
    return capture.read(capture.load(model), text)


def _animal() -> str:
    return page(_read(ANIMAL, None), text=ANIMAL, layer=5, head=11)


def _wide() -> str:
    return page(_read(WIDE, None), text=WIDE, layer=5, head=11)


def _induction() -> str:
    return page(_read(TWICE, "induction"), text=TWICE, model="induction", layer=1, head=3)


def _trained() -> str:
    heading = "MiniLM, and what each head does less before training"
    return page(_read(ANIMAL, None), heading=heading, layer=0, head=2, second=_read(ANIMAL, "untrained"))


def _walk() -> str:
    """The page of the studio where a head's numbers can be edited, without the studio around it."""
    from starlette.testclient import TestClient

    from clearhead import course
    from clearhead.studio.app.application import create
    from clearhead.studio.library.library import Library
    from clearhead.studio.web.settings import Settings

    pack = course.load(next(folder for folder in course.shipped() if folder.name == "attention"))
    topic = next(topic.id for topic in pack.topics if topic.walk == "heads")
    with tempfile.TemporaryDirectory() as folder:
        app = create(Settings(data=Path(folder) / "data"), Library((pack,), {}))
        with TestClient(app, base_url="http://127.0.0.1") as client:
            text = client.get(f"/topics/{pack.id}/{topic}/walk").raise_for_status().text
    main = re.search(r'<main id="main">(.*)<hr>', text, re.S)
    if main is None:
        raise SystemExit("the studio's Walk has another form than tools/site/live.py expects")
    # What belongs to the studio: the trail, the tabs, and another number of heads, which its server draws.
    body = re.sub(r"<nav.*?</nav>", "", main[1], flags=re.S)
    body = re.sub(r'<span class="label">Heads</span>.*?(?=<label><input type="checkbox")',
                  '<input type="hidden" name="heads" value="2">', body, flags=re.S)  # fmt: skip
    style = "".join((STATIC / f"{name}.css").read_text("utf-8") for name in ("style", "learn", "figure", "walk"))
    module = "".join((STATIC / f"{name}.js").read_text("utf-8") for name in ("words", "walk"))
    module = re.sub(r"^import .*?;\n|^export ", "", module, flags=re.M)
    dark = (STATIC / "dark.css").read_text("utf-8")
    return WALK.format(title="Walk: one layer, number by number", style=style, dark=dark, main=body, module=module)


PAGES: dict[str, Callable[[], str]] = {
    "animal.html": _animal, "wide.html": _wide, "induction.html": _induction, "trained.html": _trained,
    "walk.html": _walk,
}  # fmt: skip


def draw(folder: Path) -> list[Path]:
    """Write each page that is missing, or older than the code that draws it; return all of them."""
    newest = max(path.stat().st_mtime for source in SOURCES for path in (source, *source.rglob("*")))
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in PAGES.items():
        path = folder / name
        if not path.exists() or path.stat().st_mtime < newest:
            path.write_text(make(), encoding="utf-8")
    return [folder / name for name in PAGES]
