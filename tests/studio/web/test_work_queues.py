"""Bounds on what one learner costs the others: lengths of fields, the queue of programs, pages that never wait."""

import asyncio
import html
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import loops
from clearhead import sandbox
from clearhead.studio.text.field_limits import LONGEST
from clearhead.studio.web.settings import CORES, Settings
from clearhead.studio.web.work_queues import WAITING, Busy, WorkQueue, needs_queue, queued
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC

BROWSER = {"accept": "text/html,application/xhtml+xml"}


@pytest.mark.parametrize(
    ("kind", "address", "fields"),
    [
        ("program", f"{TOPIC}/try", {"item": "scale-of-logits"}),
        ("prediction", f"{TOPIC}/try", {"item": "scale-of-logits", "program": "1"}),
        ("note", "/notes", {"item": "scale-of-logits"}),
    ],
)
def test_a_form_too_long_is_refused_with_a_reason_and_kept(
    visitor: Visitor, kind: str, address: str, fields: dict[str, str]
) -> None:
    name = "text" if kind == "note" else kind
    long = "<\r\n" * LONGEST[kind]
    said = visitor.post(address, 422, **fields, **{name: long})
    assert f"at most {LONGEST[kind]:,}" in said
    assert html.escape("<\n" * LONGEST[kind]) in said.replace("\r\n", "\n")


def test_a_browser_finds_what_was_refused_at_an_address(visitor: Visitor) -> None:
    long = "<y" * LONGEST["note"]
    fields = {"csrf": visitor.token(), "item": "scale-of-logits", "text": long}
    answer = visitor.client.post("/notes", data=fields, headers=BROWSER)
    assert answer.history[0].status_code == 303
    assert answer.status_code == 422
    assert answer.url.path == "/refused"
    assert html.escape(long) in answer.text
    assert html.escape(long) in visitor.get(str(answer.url), 422), "and again, without sending it"
    for _ in range(5):
        visitor.later(seconds=1)
        visitor.client.post("/notes", data=fields, headers=BROWSER)
    assert len(visitor.context.store.kept_under("refused:")) == 3
    assert "at most" in visitor.get(str(answer.url), 422), "the reason outlives the text"


def test_addresses_too_long_are_refused(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LONGEST, "lens", 20_000)  # httpx takes no longer address
    assert "at most 200" in visitor.get(f"/search?q={'a' * 201}", 422)
    visitor.get(f"/search?q={'a' * 200}")
    too_long = "a" * (LONGEST["lens"] + 1)
    for address in ("/lens", "/lens/data"):
        assert "at most 20,000" in visitor.get(f"{address}?text={too_long}", 422)
    for question in ("[" * 2000, '{"a":' * 300, "[" * 2001):
        visitor.get(f"/lens/answer?text=a&question={question}", 422)
    answer = visitor.client.post("/lens/read", json={"text": too_long}, headers={"x-csrf-token": visitor.token()})
    assert answer.status_code == 422
    assert "20,000" in answer.json()["error"]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Programs that do not end until they may; `threads` says where each ran."""
    held = SimpleNamespace(threads=[], ends=threading.Event(), begun=threading.Semaphore(0))

    def run(*_: object, **__: object) -> sandbox.Outcome:
        held.threads.append(threading.current_thread().name)
        held.begun.release()
        assert held.ends.wait(60)
        raise sandbox.SandboxError("ended")

    for name in ("run", "judge"):
        monkeypatch.setattr(sandbox, name, run)
    yield held
    held.ends.set()


@pytest.mark.slow
def test_pages_come_while_programs_run_and_more_are_refused(visitor: Visitor, held: SimpleNamespace) -> None:
    token, count = visitor.token(), 60  # more than the server has threads for pages

    def tries(number: int) -> tuple[int, str, str]:
        fields = {"csrf": token, "item": "scale-of-logits", "program": f"print({number})  # what I wrote"}
        answer = visitor.client.post(f"{TOPIC}/try", data=fields)
        return answer.status_code, answer.headers.get("retry-after", ""), answer.text

    with ThreadPoolExecutor(count) as many:
        answers = [many.submit(tries, number) for number in range(count)]
        assert held.begun.acquire(timeout=60)
        visitor.get("/")
        visitor.get(f"{TOPIC}/try")
        held.ends.set()
    seen = [answer.result() for answer in answers]
    refused = [text for status, after, text in seen if status == 429 and int(after) > 0]
    assert len(refused) == count - sum(status == 200 for status, _after, _text in seen)
    assert len(held.threads) == count - len(refused) >= 1 + WAITING
    assert refused
    assert all("Wait until they have ended" in text and "# what I wrote" in text for text in refused)


def test_a_browser_finds_what_must_wait_at_an_address(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Busy

    monkeypatch.setattr(WorkQueue, "slot", refuse)
    fields = {"csrf": visitor.token(), "item": "scale-of-logits", "program": "print(1)  # what I wrote"}
    first = visitor.client.post(f"{TOPIC}/try", data=fields, headers=BROWSER)
    assert first.history[0].status_code == 303
    for answer in (first, visitor.client.get(str(first.url))):
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
        assert f'action="{TOPIC}/try"' in answer.text
        assert "# what I wrote" in answer.text
        assert "data-refused" in answer.text, "the draft is kept in the browser too"


def test_one_learner_has_one_place_among_many() -> None:
    turns, ends, running, most = WorkQueue("tests", 3), threading.Event(), 0, 0
    lock, by = threading.Lock(), list[int]()

    def work(learner: int) -> int:
        nonlocal running, most
        with lock:
            running, by[len(by) :] = running + 1, [learner]
            most = max(most, running)
        assert ends.wait(60)
        with lock:
            running -= 1
        return learner

    async def all_of_them() -> list[object]:
        greedy = [asyncio.create_task(turns.run(1, lambda: work(1))) for _ in range(20)]
        await asyncio.sleep(0)
        others = [asyncio.create_task(turns.run(number, lambda n=number: work(n))) for number in range(2, 9)]  # type: ignore[misc]
        while len(by) < 3:
            await asyncio.sleep(0.01)
        assert sorted(by) == [1, 2, 3], "each has one"
        ends.set()
        return await asyncio.gather(*greedy, *others, return_exceptions=True)

    outcomes = loops.run(all_of_them())
    assert outcomes[: 1 + WAITING] == [1] * (1 + WAITING)
    assert all(isinstance(one, Busy) for one in outcomes[1 + WAITING : 20])
    assert outcomes[20:] == list(range(2, 9))
    assert most == 3
    assert not turns._places, "nothing is kept of who waits no more"


def test_a_route_starts_again_in_its_queue_only_for_slow_work() -> None:
    seen: list[str] = []

    @queued("tests")
    def route(*, context: object, slow: bool) -> str:
        seen.append(threading.current_thread().name)
        if slow:
            needs_queue()
        return "done"

    context = SimpleNamespace(queues={"tests": WorkQueue("tests", 1)}, store=SimpleNamespace(learner=0))
    assert loops.run(route(context=context, slow=False)) == "done"  # type: ignore[arg-type]
    assert [name.startswith("tests") for name in seen] == [False]
    assert loops.run(route(context=context, slow=True)) == "done"  # type: ignore[arg-type]
    assert [name.startswith("tests") for name in seen] == [False, False, True]


def test_programs_are_bounded_by_cores_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= Settings(data=tmp_path).programs <= 2 * CORES
    sizes = {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2**18}  # 1 GiB
    monkeypatch.setattr("clearhead.studio.web.settings.os.sysconf", sizes.__getitem__)
    assert Settings(data=tmp_path).programs == 1
    sizes["SC_PHYS_PAGES"] = 2**30
    one = Settings(data=tmp_path).programs
    several = Settings(data=tmp_path, accounts=True, database="postgresql://x/y", workers=2).programs
    assert one == several == 2 * CORES, "of all processes together"
