"""The request rate of one learner: enough for a person, and bounded however busy the studio is."""

from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread

import pytest
from starlette.testclient import TestClient

from clearhead import sandbox
from clearhead.studio.accounts import request_rate
from clearhead.studio.accounts.request_rate import BURST, RATE, RequestRate, TooManyRequests
from clearhead.studio.app.application import create
from clearhead.studio.web.settings import Settings
from studio.accounts.test_accounts import learner
from studio.sample import library


class Clock:
    """Seconds that a test turns on."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def spent(rate: RequestRate, account: int, tries: int) -> int:
    """How many of these requests are taken."""
    taken = 0
    for _ in range(tries):
        try:
            rate.spend(account)
        except TooManyRequests:
            continue
        taken += 1
    return taken


def test_a_bucket_holds_a_burst_and_fills_again_at_its_rate() -> None:
    clock = Clock()
    rate = RequestRate(rate=5, burst=7, clock=clock)
    assert spent(rate, 1, 100) == 7
    assert spent(rate, 2, 3) == 3, "another learner has a bucket of his own"
    with pytest.raises(TooManyRequests) as refused:
        rate.spend(1)
    clock.now += refused.value.seconds
    assert spent(rate, 1, 100) == 1, "after the seconds that were named, the next one is taken"
    clock.now += 1
    assert spent(rate, 1, 100) == 5
    clock.now += 1000
    assert spent(rate, 1, 100) == 7, "never more than a burst"


def test_refused_requests_do_not_delay_the_next() -> None:
    clock = Clock()
    rate = RequestRate(rate=5, burst=7, clock=clock)
    spent(rate, 1, 10_000)
    clock.now += 0.2
    assert spent(rate, 1, 1) == 1


def test_threads_cannot_take_more_together() -> None:
    rate, taken, together = RequestRate(rate=1e-3, burst=500), list[int](), Barrier(8)

    def work() -> None:
        together.wait()
        taken.append(spent(rate, 1, 200))

    threads = [Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 500


def test_buckets_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_rate, "MOST", 11)
    rate = RequestRate(rate=5, burst=7, clock=Clock())
    for account in range(100):
        rate.spend(account)
    assert len(rate._buckets) == 11


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    monkeypatch.setattr(request_rate, "LONGEST", 0.0)
    app = create(Settings(data=tmp_path, host="0.0.0.0", url="http://studio.example"), library())
    with TestClient(app, base_url="http://studio.example") as client:
        yield client


@pytest.mark.slow
def test_one_learner_in_a_loop_is_slowed_down_and_others_are_not(shared: TestClient) -> None:
    ada, bob = learner(shared, "ada"), learner(shared, "bob")
    shared.app.state.request_rate = RequestRate(rate=0.5, burst=7, clock=Clock())  # type: ignore[attr-defined]
    statuses = [ada.client.get("/settings").status_code for _ in range(9)]
    assert statuses == [200] * 7 + [429] * 2
    for answer in (ada.client.get("/lens"), ada.client.post("/notes", data={"csrf": "none"})):
        assert answer.status_code == 429, "whatever the route"
        assert int(answer.headers["retry-after"]) == 2
        assert "Wait a moment" in answer.text
    reply = ada.client.get("/progress", headers={"accept": "application/json"})
    assert reply.status_code == 429
    assert "studio is busy" in reply.json()["error"]
    assert bob.client.get("/settings").status_code == 200
    assert ada.client.get("/static/style.css").status_code == 200


@pytest.mark.slow
def test_the_workers_of_a_studio_share_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    monkeypatch.setattr(Settings, "processes", 4)
    app = create(Settings(data=tmp_path, host="0.0.0.0", url="http://studio.example"), library())
    assert spent(app.state.request_rate, 1, 2 * BURST) == pytest.approx(BURST / 4, abs=RATE / 4)
    app.state.context.close()
