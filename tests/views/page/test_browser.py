"""The one-file page in a real Chromium: keys, pointing, what a screen reader is given, nothing sent anywhere."""

import json

import pytest

from clearhead.views.page import es_module
from clearhead.views.page.html import page
from clearhead.views.page.payload import payload
from clearhead.views.page.questions import answer
from views.fake import reading

pytestmark = pytest.mark.browser
TOKENS = ["[CLS]", "the", "cat", "sat", "by", "the", "window", "[SEP]"]


@pytest.fixture
def tab(browser, tmp_path):
    """Open a reading's page; fails at the end if the page raised anything or asked for anything but itself."""
    tabs, wrong = [], []

    def open_(given, *, width=1280, **options):
        file = tmp_path / "attention.html"
        file.write_text(page(given, **options), encoding="utf-8")
        opened = browser.new_page(viewport={"width": width, "height": 900})
        opened.set_default_timeout(10_000)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.on("request", lambda asked: asked.url != file.as_uri() and wrong.append(asked.url))
        opened.goto(file.as_uri())
        tabs.append(opened)
        return opened

    yield open_
    for opened in tabs:
        opened.close()
    assert wrong == []


def selected(opened):
    return opened.locator(".ch-cell[aria-selected=true]").get_attribute("aria-label")


def test_arrow_keys_walk_heads_and_escape_closes(tab):
    opened = tab(reading(TOKENS, layers=3, heads=5), layer=1, head=2)
    assert selected(opened).startswith("Layer 1, head 2")
    opened.locator(".ch-cell[aria-selected=true]").focus()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowRight")
    assert selected(opened) == "Layer 2, head 3"
    assert opened.locator(".ch-head h2").inner_text() == "Layer 2, head 3"
    opened.keyboard.press("Escape")
    assert opened.locator(".ch-one").is_hidden()
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("Enter")
    assert opened.locator(".ch-head h2").inner_text() == "Layer 1, head 3"


def test_pointing_at_a_token_lists_its_strongest_links_with_numbers(tab):
    given = reading(TOKENS, layers=2, heads=3)
    row = given.record["layer.1.attention"].weights[0, 2, 6]
    opened = tab(given, layer=1, head=2)
    opened.locator(".ch-line-query [data-token='6']").hover()
    assert opened.locator(".ch-list h3").inner_text() == "“window” looks at"
    numbers = opened.locator(".ch-list .ch-number").all_inner_texts()
    assert numbers == [f"{weight:.3f}" for weight in row.sort(descending=True).values.tolist()]
    assert opened.locator(".ch-links path").count() == sum(weight * 12 > 0.1 for weight in row.tolist())


def test_a_key_lists_who_looks_at_it(tab):
    given = reading(TOKENS, layers=1, heads=1)
    column = given.record["layer.0.attention"].weights[0, 0, :, 2]
    opened = tab(given, layer=0, head=0)
    opened.locator(".ch-line-key [data-token='2']").focus()
    assert opened.locator(".ch-list h3").inner_text() == "“cat” is looked at by"
    numbers = opened.locator(".ch-list .ch-number").all_inner_texts()
    assert numbers == [f"{weight:.3f}" for weight in column.sort(descending=True).values.tolist()]


def test_a_keyboard_walks_tokens(tab):
    opened = tab(reading(TOKENS), layer=0, head=0)
    opened.locator(".ch-line-query [data-token='0']").focus()
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowRight")
    assert opened.locator(".ch-list h3").inner_text() == "“the” is looked at by"
    opened.keyboard.press("Escape")
    assert opened.locator(".ch-list h3").inner_text() == "Strongest links of this head"


def test_the_table_holds_the_same_numbers(tab):
    given = reading(TOKENS, layers=1, heads=2)
    opened = tab(given, layer=0, head=1)
    opened.locator(".ch-table summary").click()
    opened.locator(".ch-table td").first.wait_for()
    cells = opened.locator(".ch-table td").all_inner_texts()
    weights = given.record["layer.0.attention"].weights[0, 1].flatten().tolist()
    assert [float(cell) for cell in cells] == pytest.approx(weights, abs=6e-4)


def test_the_map_is_painted_with_the_weights(tab):
    given = reading(TOKENS, layers=1, heads=2)  # the second head keeps the zeros of the first from reading as a mask
    weights = given.record["layer.0.attention"].weights[0, 0]
    weights[:] = 0.0
    weights[:, 3] = 1.0
    opened = tab(given)
    shades = opened.evaluate(
        """() => {
            const canvas = document.querySelector(".ch-cell canvas");
            const row = canvas.getContext("2d").getImageData(0, 4, canvas.width, 1).data;
            return Array.from({ length: canvas.width }, (_, i) => row[4 * i]);
        }"""
    )
    assert shades == [250, 250, 250, 0, 250, 250, 250, 250]  # --w0 and --w8, red


def test_heads_can_be_ordered_by_a_score(tab):
    given = reading(TOKENS, layers=2, heads=3)
    given.record["layer.1.attention"].weights[0, 2] = 1 / len(TOKENS)
    opened = tab(given, layer=0, head=1)
    opened.locator(".ch select").select_option("breadth")
    names = [cell.get_attribute("aria-label") for cell in opened.locator(".ch-cell").all()]
    assert names[0] == "Layer 1, head 2: 1"
    assert len(names) == 6
    opened.locator(".ch-cell").nth(1).focus()
    opened.keyboard.press("ArrowLeft")
    assert selected(opened).startswith("Layer 1, head 2")


def test_a_pinned_head_is_taken_away_from_the_one_that_is_open(tab):
    given = reading(TOKENS, layers=2, heads=3)
    opened = tab(given, layer=0, head=1)
    opened.get_by_role("button", name="Pin to compare").click()
    opened.locator(".ch-cell[title='Layer 1, head 2']").click()
    assert "minus the pinned one, layer 0, head 1" in opened.locator(".ch-less").inner_text()
    one, other = (given.record[f"layer.{layer}.attention"].weights[0, head, 0, 0] for layer, head in ((1, 2), (0, 1)))
    opened.locator(".ch-hatch").hover(position={"x": 2, "y": 2})
    said = opened.locator(".ch-readout").inner_text().split()[-1].replace("−", "-")
    assert float(said) == pytest.approx(float(one - other), abs=6e-4)
    opened.get_by_role("button", name="Unpin").click()
    assert opened.locator(".ch-less").count() == 0
    assert opened.locator(".ch-acts button").first.evaluate("node => node === document.activeElement")


def test_no_page_is_wider_than_a_phone(tab):
    long = [*TOKENS, "Donaudampfschifffahrtsgesellschaftskapitän" * 3]
    opened = tab(reading(long, layers=2, heads=12), width=390, layer=0, head=0)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390


def test_how_it_was_computed_is_a_program_that_runs(tab):
    opened = tab(reading(TOKENS), layer=1, head=2, text='Say "hi"', model="a/folder")
    opened.locator(".ch-how summary").click()
    program = opened.locator(".ch-how pre").inner_text()
    compile(program, "program", "exec")
    assert 'capture.load("a/folder"), "Say \\"hi\\"")' in program
    assert 'record["layer.1.attention"]' in program
    assert "torch 2" in opened.locator(".ch-how .ch-note").inner_text()


def test_a_long_text_says_what_was_left_out(tab):
    opened = tab(reading(331, layers=1, heads=11), layer=0, head=0)
    assert "Left out" in opened.locator(".ch-foot").inner_text()
    opened.locator(".ch-line-query [data-token='0']").focus()
    assert opened.locator(".ch-list li").count() == 8


def test_accessibility(tab):
    pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    from browser.looking import findings

    for scheme in ("light", "dark"):
        opened = tab(reading(TOKENS, is_causal=True), layer=0, head=1)
        opened.emulate_media(color_scheme=scheme)
        opened.locator(".ch-line-query [data-token='3']").focus()
        assert findings(opened, colours_alone=scheme == "dark") == [], scheme


LIVE = """
<!doctype html><meta charset="utf-8"><style>{style}</style><div id="here"></div>
<script type="module">
{module}
const model = plainModel({{ payload: {data}, layer: 0, head: 1 }}, (question) => window.askPython(question));
attention.render({{ model, el: document.getElementById("here") }});
</script>
"""


@pytest.fixture
def live(browser):
    """A page whose pictures ask Python, as they do in a notebook and in the studio."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(10_000)
    asked, wrong = [], []
    opened.on("pageerror", lambda error: wrong.append(str(error)))

    def show(given):
        def reply(question):
            asked.append(question)
            return answer(given, question)

        opened.expose_function("askPython", reply)
        source = es_module.one_module().replace("export default {", "const attention = {")
        data = json.dumps(payload(given)).replace("<", "\\u003c")
        opened.set_content(LIVE.format(style=es_module.style(), module=source, data=data))
        return opened, asked

    yield show
    opened.close()
    assert wrong == []


def test_zooming_asks_for_the_exact_tile_and_names_the_tokens(live):
    given = reading(331, layers=1, heads=11)
    opened, asked = live(given)
    opened.locator(".ch-tools").wait_for()
    for _ in range(5):
        opened.get_by_role("button", name="Zoom in").click()
    opened.locator(".ch-named").wait_for()
    question = asked[-1]
    assert question["kind"] == "tile"
    (start, stop), (left, right) = question["rows"], question["cols"]
    assert stop - start <= 32
    opened.locator(".ch-hatch").hover(position={"x": 3, "y": 3})
    weight = float(given.record["layer.0.attention"].weights[0, 1, start, left])
    assert (
        f"word{start} → word{left} {weight:.{5 if weight < 0.001 else 3}f}"
        in opened.locator(".ch-readout").inner_text()
    )
    assert right - left == opened.locator(".ch-names-key span").count()


def test_pointing_in_a_long_text_asks_for_the_exact_links(live):
    given = reading(331, layers=1, heads=11)
    opened, asked = live(given)
    opened.locator(".ch-line-key [data-token='5']").focus()
    column = given.record["layer.0.attention"].weights[0, 1, :, 5].sort(descending=True).values[:8].tolist()
    opened.wait_for_function("document.querySelectorAll('.ch-links path').length > 8")
    assert opened.locator(".ch-list .ch-number").all_inner_texts() == [f"{weight:.3f}" for weight in column]
    assert asked[-1]["side"] == "key"


def test_a_very_long_text_shows_a_window_of_its_tokens(live):
    opened, _ = live(reading(1201, layers=1, heads=2))
    tokens = opened.locator(".ch-line-query .ch-token")
    tokens.first.wait_for()
    assert tokens.count() == 512
    opened.get_by_role("button", name="Later").click()
    assert tokens.first.inner_text() == "word256"
    opened.locator(".ch-hatch").click(position={"x": 9, "y": 1})
    assert opened.locator(".ch-here").inner_text().startswith("word")
    first = int(tokens.first.get_attribute("data-token"))
    here = int(opened.locator(".ch-here").get_attribute("data-token"))
    assert first <= here < first + 512
    opened.get_by_role("button", name="Later").click()
    opened.locator(".ch-token").nth(511).focus()
    opened.keyboard.press("ArrowDown")
    assert "looks at" in opened.locator(".ch-list h3").inner_text()


def test_the_view_moves_by_keyboard(live):
    opened, _ = live(reading(97, layers=1, heads=2))
    opened.get_by_role("button", name="Zoom in").click()
    assert opened.locator(".ch-tools small").inner_text() == "queries 24–72, keys 24–72"
    opened.keyboard.press("ArrowDown")
    opened.keyboard.press("ArrowLeft")
    assert opened.locator(".ch-tools small").inner_text() == "queries 36–84, keys 12–60"
    opened.get_by_role("button", name="whole").click()
    assert opened.locator(".ch-tools small").inner_text() == ""


# How notebooks set a theme: an attribute of the body, and ink for all that is in it.
NOTEBOOK = """<!doctype html><meta charset="utf-8"><style>%(style)s
body { background: white; color: #212121 } body[data-jp-theme-light="false"] { background: #111; color: oklch(0.9 0 0) }</style>
<body data-jp-theme-light="true"><div id="cell"></div><script type="module">%(module)s
const values = %(values)s;
widget.render({ model: plainModel(values), el: document.getElementById("cell") });
</script>"""
# Of the widget's text and of a map: how far from the page's ground they are, 0 to 1.
_APART = """() => {
  const pixel = (colour) => {
    const context = document.createElement("canvas").getContext("2d");
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data[1] / 255;
  };
  const ground = pixel(getComputedStyle(document.body).backgroundColor);
  const map = document.querySelector(".ch-cell canvas"), image = map.getContext("2d").getImageData(0, 0, map.width, map.height).data;
  const least = Math.min(...Array.from({ length: image.length / 4 }, (_, i) => image[4 * i + 3] ? Math.abs(image[4 * i + 1] / 255 - ground) : 1));
  return ["h2", ".ch-note", ".ch-q", "select"].map((one) => Math.abs(pixel(getComputedStyle(document.querySelector(`.ch ${one}`)).color) - ground)).concat(least);
}"""


@pytest.mark.parametrize("system", ["light", "dark"])
def test_in_a_notebook_the_notebooks_theme_counts_and_not_the_systems(browser, tmp_path, system):
    values = {"payload": payload(reading(TOKENS, layers=1, heads=2, is_causal=True)), "layer": 0, "head": 1}
    module = es_module.one_module().replace("export default", "const widget =")
    filled = {"style": es_module.notebook_style(), "module": module, "values": json.dumps(values)}
    file = tmp_path / "notebook.html"
    file.write_text(NOTEBOOK % filled, encoding="utf-8")
    with browser.new_context(color_scheme=system) as context:
        opened = context.new_page()
        opened.goto(file.as_uri())
        opened.locator(".ch-head h2").wait_for()
        for light in ("true", "false", "true"):
            opened.evaluate("(light) => { document.body.dataset.jpThemeLight = light }", light)
            opened.wait_for_function(
                "(dark) => Boolean(document.querySelector('.ch-on-dark')) === dark", arg=light == "false"
            )
            *text, unattended = opened.evaluate(_APART)
            assert min(text) > 0.3, (light, text)
            assert unattended < 0.15  # weight 0 has the colour of the page, nearly
        opened.evaluate("() => { document.body.dataset.jpThemeLight = 'false' }")
        opened.emulate_media(media="print")
        assert opened.evaluate("() => getComputedStyle(document.querySelector('.ch')).color") == "rgb(31, 29, 26)"
