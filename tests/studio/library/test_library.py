"""The library fills while the studio serves: topic by topic, each question as soon as its answer is computed."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.errors import PackError, SandboxError
from clearhead.studio.app import serving
from clearhead.studio.app.application import create
from clearhead.studio.library.library import Library, prove, unproved
from clearhead.studio.web.settings import Settings
from studio import sample

PACK = Path(__file__).parents[2] / "packs" / "good"
confined = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be proved here: {sandbox.explain()}")


def test_a_shelf_is_read_before_anything_is_proved() -> None:
    library = unproved([PACK])
    assert library.coming == len(library.packs[0].items) > 0
    assert not library.items
    assert list(library.topics())


def test_one_id_in_two_packs_is_refused() -> None:
    with pytest.raises(PackError, match="used once"):
        unproved([PACK, PACK])


@confined
def test_it_fills_item_by_item_and_starts_again_from_the_cache(tmp_path: Path) -> None:
    seen: list[Library] = []
    empty = unproved([PACK])
    whole = prove(empty, tmp_path, seen.append)
    assert whole.coming == 0
    assert [one.coming for one in seen] == sorted((one.coming for one in seen), reverse=True)
    assert len({one.coming for one in seen}) == empty.coming + 1
    assert not whole.failed
    assert prove(empty, tmp_path).proved == whole.proved


@confined
def test_what_publish_raises_ends_the_proving(tmp_path: Path) -> None:
    published = 0

    def stop(_: Library) -> None:
        nonlocal published
        published += 1
        if published == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        prove(unproved([PACK]), tmp_path, stop)
    assert published == 3


@pytest.mark.slow
def test_pages_follow_a_fuller_shelf(tmp_path: Path) -> None:
    whole = sample.library()
    early = replace(whole, proved={}, coming=len(whole.proved))
    app = create(Settings(data=tmp_path), early)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        address = "/topics/{}/{}".format(*((pack.id, topic.id) for pack, topic in whole.topics()).__next__())
        assert f"{early.coming} more are being computed" in client.get("/").text
        for mode in ("recall", "practice", "try", "challenge", "test"):
            waiting = client.get(f"{address}/{mode}")
            assert waiting.status_code == 404
            assert "still being computed" in waiting.text
            assert re.search(rf'href="{address}/{mode}"[^>]*>Load it again', waiting.text)
        assert "still being computed" in client.get("/review").text
        app.state.context.set_library(whole)
        assert "being computed" not in client.get("/").text
        assert client.get(f"{address}/practice").status_code == 200
        assert set(app.state.context.progress.items) == set(whole.items)


def test_a_page_whose_programs_still_run_says_so_and_loads_itself_again(tmp_path: Path) -> None:
    whole = sample.library()
    pack, topic = next(iter(whole.topics()))
    page = replace(topic.pages["read"], text="Look.\n\n```python run\nprint(6 * 7)\n```\n")
    pages = {**topic.pages, "read": page, "why": replace(page, text="No program.")}
    pack = replace(pack, topics=(replace(topic, pages=pages), *pack.topics[1:]))
    early = replace(whole, packs=(pack,), pages={}, coming=3)
    app = create(Settings(data=tmp_path), early)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        read = f"/topics/{pack.id}/{topic.id}/read"
        waiting = client.get(read).text
        assert 'http-equiv="refresh"' in waiting
        assert "programs of this page are still running" in waiting
        assert 'http-equiv="refresh"' not in client.get(read.replace("read", "why")).text
        there = {(pack.id, topic.id, "read"): "```python\nprint(6 * 7)\n```\n\n~~~output\n42\n~~~"}
        app.state.context.set_library(replace(early, pages=there))
        assert 'http-equiv="refresh"' not in client.get(read).text
        app.state.context.set_library(replace(early, coming=0))  # nothing can be run here
        assert 'http-equiv="refresh"' not in client.get(read).text


def test_where_nothing_can_be_proved_no_answer_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise SandboxError("programs cannot be confined here")

    monkeypatch.setattr(serving, "prove", refuse)
    app = create(Settings(data=tmp_path), replace(sample.library(), proved={}, coming=5))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        with serving._proving(Settings(data=tmp_path), app.state.context, Console(quiet=True)):
            pass
        assert "being computed" not in client.get("/").text
