"""Several processes over one socket and one database: who is logged in, what counts, and what a dead one costs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from clearhead import sandbox
from clearhead.errors import ModelError, OptionError
from clearhead.sandbox.processes import gate
from clearhead.studio.accounts.users import open_users
from clearhead.studio.app import serving
from clearhead.studio.app.application import create
from clearhead.studio.lens.reading_request import ReadingRequest
from clearhead.studio.lens.readings import Readings
from clearhead.studio.web.context import LENSES, WRITERS
from clearhead.studio.web.settings import CORES, Settings
from studio import postgresql
from studio.accounts.test_accounts import WORD
from studio.app.test_serving import posted, started
from studio.conftest import visitor_of
from studio.sample import library

PACK = Path(__file__).parents[2] / "packs" / "good"
PROGRAM = f"""
import sys
from pathlib import Path
from clearhead.studio.app import serving
from clearhead.studio.web.settings import Settings
settings = Settings(data=Path(sys.argv[1]), host="0.0.0.0", port=0, database=sys.argv[2], workers=2,
                    packs=(Path({str(PACK)!r}),))
serving.serve(settings, browser=False)
"""


def children(process: int) -> list[int]:
    """The worker processes, without Python's own resource tracker."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    pids = map(int, listed.read_text().split()) if listed.exists() else ()
    return [pid for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be confined here: {sandbox.explain()}")
def test_two_processes_are_one_studio_and_one_may_die(tmp_path: Path, postgresql_server: postgresql.Server) -> None:
    database = postgresql_server.database()
    with started(tmp_path, port=database, program=PROGRAM) as (running, address, _):
        port = address.rsplit(":", 1)[1]
        with open_users(tmp_path, database) as here:
            link = f"/join/{here.accounts.add('ada')}"
        base = f"http://127.0.0.1:{port}"
        with httpx2.Client(base_url=base, follow_redirects=True, timeout=120) as ada:
            posted(ada.get(link), ada, link, password=WORD, again=WORD)
            cookies = dict(ada.cookies)
        drafts = []
        for _ in range(8):  # a new connection each time: either process may take it
            with httpx2.Client(base_url=base, follow_redirects=True, timeout=120, cookies=cookies) as ada:
                assert ada.get("/progress").status_code == 200
                while not (page := ada.get("/items/choice-even")).is_success:
                    time.sleep(0.2)  # its answer is still being computed
                ticket = re.search(r'name="ticket" value="([^"]+)"', page.text)
                assert ticket
                drafts.append(ticket[1])
                assert posted(page, ada, "/answer", ticket=ticket[1], response="a").is_success
        workers = children(running.pid)
        assert len(workers) == 2
        os.kill(workers[0], signal.SIGKILL)
        for ticket_again in drafts[:4]:
            with httpx2.Client(base_url=base, follow_redirects=True, timeout=120, cookies=cookies) as ada:
                posted(ada.get("/progress"), ada, "/answer", ticket=ticket_again, response="a")
        with httpx2.Client(base_url=base, follow_redirects=True, timeout=120, cookies=cookies) as ada:
            assert len(ada.get("/settings/data.json").json()["attempts"]) == 8, "none lost, none doubled"
        running.send_signal(signal.SIGTERM)
        out, errors = running.communicate(timeout=60)
        assert "Stopped." in out
        assert "Traceback" not in errors
        assert children(running.pid) == []


STOPPED_WHILE_STARTING = """
import os, signal, time
from multiprocessing.process import BaseProcess
from clearhead.studio.app import workers
from clearhead.studio.web.settings import Settings

def work(settings, listener, number):
    time.sleep(1000)

if __name__ == "__main__":
    start = BaseProcess.start

    def start_and_signal(self):
        start(self)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)

    BaseProcess.start = start_and_signal
    workers.run(work, Settings(), None, 2)
    print("ended")
"""


@pytest.mark.slow
def test_a_signal_while_a_worker_starts_ends_all_of_them(tmp_path: Path) -> None:
    """A studio hung when SIGTERM came while it replaced a worker: the new one was in no list of those to end."""
    script = tmp_path / "starting.py"
    script.write_text(STOPPED_WHILE_STARTING)
    running = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert running.communicate(timeout=60)[0] == "ended\n"
        assert running.returncode == 0
    finally:
        for pid in children(running.pid) if running.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        running.kill()


def test_what_the_lens_was_asked_is_known_to_the_other_process(tmp_path: Path) -> None:
    here, there = Readings(folder=tmp_path / "lens"), Readings(folder=tmp_path / "lens")
    wanted = ReadingRequest("It was too tired", "induction", rollout=True)
    here._share(f"{wanted.key}.json", b"")
    key = here.add_upload(b"a picture")
    assert there._uploaded(key) == b"a picture"
    with pytest.raises(ModelError, match="not kept"):
        there._uploaded("../../secret")
    with pytest.raises(ModelError, match="not kept"):
        Readings()._uploaded(key)


@pytest.mark.slow
def test_starting_over_in_one_process_counts_in_the_other(tmp_path: Path) -> None:
    client, here = visitor_of(tmp_path)
    _, there = visitor_of(tmp_path)
    with client:
        page = here.get("/items/scale-of-logits")
        here.post("/answer", ticket=here.ticket(page), response="a")
        assert "You have 1 answer." in there.get("/settings")
        here.post("/settings/start-over")
        assert "You have 0 answers." in there.get("/settings")


def test_memory_of_learners_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    monkeypatch.setattr("clearhead.studio.web.context.LEARNERS", 5)
    context = create(Settings(data=tmp_path, accounts=True), library()).state.context
    first = context.at(1).learner
    assert context.at(1).learner is first
    for number in range(2, 40):
        context.at(number)
    assert len(context._others) == 5
    assert context.at(1).learner is not first
    assert context.at(1).progress == first.known()[0]


@pytest.mark.parametrize(
    ("given", "processes"),
    [
        ({}, 1),
        ({"host": "0.0.0.0"}, 1),
        ({"host": "0.0.0.0", "database": "postgresql://x/y"}, CORES),
        ({"host": "0.0.0.0", "database": "postgresql://x/y", "workers": 3}, 3),
        ({"database": "postgresql://x/y"}, 1),
    ],
)
def test_how_many_processes_serve(given: dict[str, object], processes: int) -> None:
    assert Settings(**given).processes == processes  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"workers": 0}, {"workers": 2}])
def test_workers_that_cannot_be_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="workers"):
        Settings(**given)  # type: ignore[arg-type]


def test_each_process_has_its_part_of_the_sandbox_and_all_have_one_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "_gate", gate.current())
    for name in ("_run", "unproved"):
        monkeypatch.setattr(serving, name, lambda *_: None)
    monkeypatch.setattr(serving.application, "create", lambda *_: None)
    settings = Settings(data=tmp_path, accounts=True, database="postgresql://x/y", workers=4)
    sandbox.share(1)
    whole = gate.current().programs
    with socket.socket() as listener:
        serving.work(settings, listener, number=1)
    assert gate.current().programs == max(2, whole // 4)


@pytest.mark.parametrize("workers", [1, 2])
def test_queues_of_several_processes_share_their_limits(
    tmp_path: Path, postgresql_server: postgresql.Server, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(sandbox, "must_confine", lambda: None)
    settings = Settings(
        data=tmp_path, host="0.0.0.0", database=postgresql_server.database(), workers=workers, url="http://x.example"
    )
    desks = [create(settings, library()).state.context for _ in range(2)]
    for kind, most in {"programs": settings.programs, "experiments": 1, "lens": LENSES, "writing": WRITERS}.items():
        one, other = (context.queues[kind] for context in desks)
        assert one.at_once == other.at_once == most
        assert (one._locks is not None) == (workers > 1)
    for context in desks:
        context.close()
