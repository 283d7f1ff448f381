"""What a learner does, in a real browser: by pointer, by keyboard alone, and with JavaScript off."""

import re

import pytest
from playwright.sync_api import Page, Route, expect

from clearhead import sandbox

TOPIC = "/topics/attention/one-head"
# What a page said while the next one was on its way.
REMEMBER_SIGNS = """() => {
  const keep = () => sessionStorage.setItem("signs", document.querySelector(".underway")?.textContent ?? "");
  new MutationObserver(keep).observe(document.body, { subtree: true, childList: true });
}"""


def ready(page: Page) -> None:
    """Wait until the page listens to keys: tests press them faster than people."""
    page.locator("html.scripted").wait_for()


def until(page: Page, script: str) -> None:
    """Wait until a script gives true. Playwright's own wait evaluates text in the page, which its policy refuses."""
    for _ in range(3000):
        if page.evaluate(script):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"never: {script}")


def test_from_home_to_a_wrong_answer_its_reason_the_right_one_and_a_head(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Start: One head, step by step").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("One head, step by step")
    page.get_by_role("navigation", name="Modes").get_by_role("link", name="Practice").click()
    page.get_by_text("16.0").click()
    page.get_by_role("button", name="Answer", exact=False).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not right")
    expect(page.get_by_text("nothing divides the logits")).to_be_visible()
    expect(page.get_by_text("counterexample 1")).to_be_visible()
    page.get_by_role("link", name="Answer it again").click()
    page.get_by_text("4.0").last.click()
    page.get_by_role("button", name="Answer", exact=False).first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Right")
    page.get_by_role("link", name="Lens").click()
    expect(page.get_by_role("heading", name="Lens")).to_be_visible()
    page.get_by_role("gridcell", name="Layer 2, head 3").click(timeout=60_000)  # a real model is loaded for this
    expect(page.get_by_role("heading", name="Layer 2, head 3")).to_be_visible()


def test_by_keyboard_alone(page: Page) -> None:
    page.goto(f"{TOPIC}/practice")
    ready(page)
    letter = page.locator("label", has_text="16.0").locator("input").get_attribute("data-letter")
    assert letter
    page.keyboard.press(letter)
    page.keyboard.press("h")
    expect(page.get_by_text("Count first.")).to_be_visible()
    expect(page.locator("label", has_text="16.0").locator("input")).to_be_checked()
    page.keyboard.press("3")
    expect(page.get_by_label("fairly sure")).to_be_checked()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text(f"Not right: you chose {letter}")
    expect(page.get_by_text("Before the answer you said: fairly sure.")).to_be_visible()
    ready(page)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"/practice\?after=scale-of-logits"))
    ready(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Choose an option")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_cards_take_one_key_each_and_a_grade_can_be_taken_back(page: Page) -> None:
    page.goto(f"{TOPIC}/recall")
    expect(page.locator(".card-back")).to_have_count(0)
    ready(page)
    page.keyboard.press("Space")
    expect(page.locator(".card-back")).to_be_visible()
    ready(page)
    page.keyboard.press("2")
    expect(page.get_by_text("1 of 2 right so far")).to_be_visible()
    ready(page)
    page.keyboard.press("z")
    expect(page).to_have_url(re.compile("/items/"))
    page.goto(f"{TOPIC}/recall")
    expect(page.get_by_text("0 of 2 right so far")).to_be_visible()


def test_the_skip_link_is_the_first_stop_of_tab(page: Page) -> None:
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()


def test_the_first_picture_turns_with_the_arrow_keys(page: Page) -> None:
    page.goto("/")
    before = page.locator(".number").all_text_contents()
    page.get_by_label("Direction of the query").focus()
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    after = page.locator(".number").all_text_contents()
    assert before != after
    assert sum(map(float, after)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("look", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_one_reads_recalls_and_answers(page: Page) -> None:
    page.goto("/")
    page.get_by_role("link", name="Start").click()
    expect(page.locator("math")).not_to_have_count(0)
    page.get_by_role("link", name="Or answer from memory now").click()
    page.get_by_role("button", name="Show the answer").click()
    page.get_by_role("button", name="Good").click()
    page.goto(f"{TOPIC}/practice")
    page.get_by_text("16.0").click()
    page.get_by_role("button", name="A hint (2 left)").click()
    expect(page.get_by_text("Count first.")).to_be_visible()
    expect(page.locator("label", has_text="16.0").locator("input")).to_be_checked()
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not right")
    page.goto(f"{TOPIC}/test")
    page.get_by_role("link", name="Begin").click()
    for _ in range(3):
        page.locator("input[name=response]").first.click()
        page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("of 3 right")
    page.goto(f"{TOPIC}/walk?heads=4&q-0-0=3")
    expect(page.locator("[data-matrix^=weights-]")).to_have_count(4)


def test_the_back_button_does_not_double_an_answer(page: Page) -> None:
    page.goto(f"{TOPIC}/practice")
    page.get_by_text("16.0").click()
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Not right")
    page.go_back()
    page.get_by_text("4.0").last.click()
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


@pytest.mark.parametrize("mode", ["practice", "recall"])
def test_a_second_click_sends_nothing_until_loading_is_stopped(page: Page, mode: str) -> None:
    held: list[Route] = []
    page.route("**/answer", lambda route: held.append(route))
    page.goto(f"{TOPIC}/{mode}")
    ready(page)
    if mode == "practice":
        page.get_by_text("16.0").click()
    else:
        with page.expect_navigation():
            page.keyboard.press("Space")
        ready(page)
    button = page.get_by_role("button", name="Answer" if mode == "practice" else "Good").first
    button.scroll_into_view_if_needed()
    box = button.bounding_box()
    assert box
    pace = 150  # ms between the clicks of a hand; at once, Chromium itself takes two for one

    def click() -> None:
        page.mouse.click(box["x"] + 9, box["y"] + 9)
        page.wait_for_timeout(pace)

    click()
    click()
    assert len(held) == 1
    page.keyboard.press("Escape")
    click()
    assert len(held) == 2
    with page.expect_navigation():
        held[1].continue_()
    ready(page)
    expect(page.get_by_text("You had answered this question already")).to_have_count(0)


def test_the_back_button_ticks_no_option_of_another_question(page: Page) -> None:
    page.goto(f"{TOPIC}/practice")
    page.get_by_text("16.0").click()
    page.goto("/")
    page.go_back()
    expect(page.get_by_text("16.0")).to_be_visible()
    expect(page.locator("input:checked")).to_have_count(0)  # the letters stand in another order now


def test_an_edited_number_reaches_the_output_and_says_how(page: Page) -> None:
    page.goto(f"{TOPIC}/walk")
    ready(page)
    last = page.locator("[data-matrix=result] td[data-i]").last
    before = last.text_content()
    page.get_by_label("V, row 3, column 4").fill("9")
    expect(last).not_to_have_text(str(before))
    page.locator("[data-matrix=weights-1] td[data-i]").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("status")).to_contain_text("e^")
    expect(page.locator("[data-matrix=logits-1] td.source")).to_have_count(3)
    page.get_by_label("4", exact=True).press("Space")  # a click may meet the page as it moves
    expect(page.get_by_label("4", exact=True)).to_be_checked()
    expect(page.locator("[data-matrix^=weights-]")).to_have_count(4)
    expect(last).not_to_have_text(str(before))
    page.get_by_role("button", name="Watch").click()
    expect(page.locator(".flying")).to_have_count(0)
    page.get_by_role("button", name="average the heads").click()
    expect(page.get_by_label("W, row 1, column 1")).to_have_value("0.25")
    page.get_by_label("2", exact=True).press("Space")
    page.get_by_role("button", name="Start over").click()
    expect(last).to_have_text(str(before))


def test_a_test_and_a_challenge_by_keyboard(page: Page) -> None:
    for mode, end in (("test", "of 3 right"), ("challenge", "of 3 solved")):
        page.goto(f"{TOPIC}/{mode}")
        ready(page)
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/{mode}/**")
        for _ in range(8):
            if page.get_by_text(end).count():
                break
            ready(page)
            page.keyboard.press("a")
            with page.expect_navigation():
                page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_contain_text(end)


@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")
def test_a_program_is_predicted_and_run_and_an_experiment_measured(page: Page) -> None:
    page.goto(f"{TOPIC}/try")
    ready(page)
    page.get_by_label("It will print").fill("16.0")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Not what you said")).to_be_visible()
    expect(page.get_by_text("nothing divides the logits")).to_be_visible()
    ready(page)
    page.get_by_label("The program").fill("print(16.0)")
    page.get_by_label("It will print").fill("16.0")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("As you said")).to_be_visible()
    ready(page)
    page.get_by_label("The program").fill("import time; time.sleep(3)")
    page.evaluate(REMEMBER_SIGNS)
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("It ran")).to_be_visible()
    assert page.evaluate("sessionStorage.getItem('signs')") == "Working on it…"
    page.goto(f"{TOPIC}/experiment?name=hard")
    page.get_by_label("Keys").press("ArrowRight")
    expect(page.get_by_text("Keys: 64")).to_be_visible()
    page.get_by_label("smaller").check()
    page.get_by_role("button", name="Measure it here").click()
    expect(page.locator("[role=status]")).to_have_text("Done.")
    expect(page.get_by_role("img")).to_have_count(3)
    expect(page.get_by_text("As you guessed")).to_be_visible()
