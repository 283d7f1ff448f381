"""The studio as an app: with the network off it opens on the cards, and grades given then are sent once."""

import json

import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.parametrize("look", [{"service_workers": "allow"}], indirect=True, ids=["app"])


def count(page: Page) -> int:
    data = page.evaluate("fetch('/settings/data.json').then((answer) => answer.json())")
    return len(data["attempts"])


def taken_along(page: Page) -> None:
    """Wait until the page of cards and the cards are on the device."""
    page.evaluate("""async () => {
        await navigator.serviceWorker.ready;
        for (const address of ["/offline", "/offline/cards"])
            while (!(await caches.match(address))) await new Promise((soon) => setTimeout(soon, 20));
    }""")


def test_cards_are_learned_with_the_network_off_and_sent_once(page: Page) -> None:
    page.goto("/")
    taken_along(page)
    page.context.set_offline(True)
    page.goto("/topics/attention/one-head/recall")  # any address
    expect(page.get_by_role("heading", level=1)).to_have_text("Cards without a network")
    expect(page.get_by_text("Cards left: 2")).to_be_visible()
    assert "What softmax makes" not in page.content()
    page.locator("html.scripted").wait_for()
    page.keyboard.press("Space")
    expect(page.get_by_text("What softmax makes of a logit.")).to_be_visible()
    page.keyboard.press("2")
    expect(
        page.get_by_text("Cards left: 1. Graded here, to be sent when the studio can be reached: 1.")
    ).to_be_visible()
    page.reload()
    expect(page.get_by_text("when the studio can be reached: 1.")).to_be_visible()
    page.get_by_role("button", name="Show the answer").click()
    page.get_by_role("button", name="Again").click()
    expect(page.get_by_text("No card is left on this device.")).to_be_visible()
    page.context.set_offline(False)
    page.goto("/offline")
    expect(page.get_by_text("No card is left on this device.")).to_be_visible()
    expect(page.locator("#says")).to_be_empty()
    assert count(page) == 2
    page.goto("/")
    page.goto("/offline")
    assert count(page) == 2


def test_a_send_cut_off_is_sent_again_and_counts_once(page: Page) -> None:
    page.goto("/")
    taken_along(page)
    script = """async () => {
        const { cardsHere, keep, send, waiting } = await import("/static/cards.js");
        const [card] = await cardsHere();
        await keep(card.ticket, "good");
        await keep(card.ticket, "again");
        const kept = await waiting();
        const real = globalThis.fetch;
        globalThis.fetch = async (...all) => { // the studio keeps the grade, its answer is lost on the way
            const answer = await real(...all);
            if (String(all[0]).endsWith("/attempts")) throw new TypeError("cut off");
            return answer;
        };
        const first = await send().catch((problem) => problem.message);
        globalThis.fetch = real;
        const still = (await waiting()).length;
        return [kept.length, kept[0].response, first, still, await send(), (await waiting()).length];
    }"""
    assert json.loads(json.dumps(page.evaluate(script))) == [1, "good", "cut off", 1, True, 0]
    assert count(page) == 1
