"""A form sent while the database is away, in a real browser: what was typed stays, and it counts once."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from browser.conftest import serve
from browser.learn.test_journey import ready
from clearhead.studio.web.settings import Settings
from studio import postgresql, sample

pytestmark = pytest.mark.stress


@pytest.fixture
def server() -> Iterator[postgresql.Server]:
    with postgresql.server_or_skip() as running:
        yield running


@pytest.fixture
def address(tmp_path: Path, server: postgresql.Server) -> Iterator[str]:
    yield from serve(tmp_path, sample.library(), Settings(data=tmp_path, token="", database=server.database()))


@pytest.mark.parametrize("look", [{"service_workers": "allow"}], indirect=True)
def test_an_answer_and_a_note_sent_while_the_database_is_away_count_once(
    page: Page, address: str, server: postgresql.Server
) -> None:
    page.goto("/items/scale-of-logits")
    ready(page)
    page.get_by_text("16.0").click()
    server.control("-m", "immediate", "stop")
    page.get_by_role("button", name="Answer").first.click()
    expect(page.get_by_role("heading", name="The database is not available")).to_be_visible()
    expect(page.get_by_label("What you sent")).to_have_count(0)  # a ticket is nothing to read
    page.get_by_role("button", name="Send it again").click()
    expect(page.get_by_role("button", name="Send it again")).to_be_visible()
    server.control("start")
    page.get_by_role("button", name="Send it again").click()
    expect(page.get_by_text("The idea behind that answer")).to_be_visible()

    page.get_by_text("Your note on this question").click()
    page.get_by_label("Your note", exact=True).fill("what I typed")
    server.control("-m", "immediate", "stop")
    page.get_by_role("button", name="Save the note").click()
    expect(page.get_by_role("button", name="Send it again")).to_be_visible()
    ready(page)
    server.control("start")
    page.goto("/items/scale-of-logits")
    kept = page.request.get("/settings/data.json").json()
    assert [attempt["item_id"] for attempt in kept["attempts"]] == ["scale-of-logits"]
    page.goto(f"/attempts/{kept['attempts'][0]['id']}")
    ready(page)
    expect(page.get_by_label("Your note", exact=True)).to_have_value("what I typed")
