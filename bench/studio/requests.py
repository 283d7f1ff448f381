"""The processor time of each kind of request to the studio: `.venv/bin/python -m bench.studio.requests`.

For each kind of request another learner of a shared studio with one worker and PostgreSQL (or `--sqlite`) repeats the
same request through a real socket. Prints the milliseconds of processor time per request, as the kernel counts them, of
all threads of the studio and of the database. On a machine that others use, run it under `chrt -f 10` and compare runs
in turn: waiting does not count, but cold caches do.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import httpx2
from rich.console import Console
from rich.table import Table

from bench.studio import classroom, disturbances
from bench.studio.learners import CSRF, answer_form
from clearhead.course import load
from clearhead.studio.accounts import request_rate
from clearhead.studio.accounts.users import open_users
from clearhead.studio.questions.question import FORMS

KINDS = ("home", "question", "question_and_answer", "feedback", "login_page", "log_in")
MOST = request_rate.BURST // 2 - 20  # rounds per learner; a question and its answer are two requests


def processor_time(pids: list[int]) -> float:
    """Return the milliseconds that all threads of these processes have run."""
    nanoseconds = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e6


class Browser:
    """A learner's connection, logged in. Each method is one kind of request, or a few that belong together."""

    def __init__(self, base: str, name: str, items: list[str]) -> None:
        self.client = httpx2.Client(base_url=base, timeout=60, headers={"accept": "text/html"})
        found = CSRF.search(self.client.get("/login").text)
        assert found
        self.csrf, self.name, self.items, self.count = found[1], name, items, 0
        self.log_in()
        self.answered = self.question_and_answer()

    def log_in(self) -> None:
        self._post("/login", name=self.name, password=classroom.PASSWORD)

    def login_page(self) -> None:
        self.client.get("/login").raise_for_status()

    def home(self) -> None:
        self.client.get("/").raise_for_status()

    def question(self) -> str:
        self.count += 1
        page = self.client.get(f"/items/{self.items[self.count % len(self.items)]}")
        return page.raise_for_status().text

    def question_and_answer(self) -> str:
        return self._post("/answer", **answer_form(self.question()))

    def feedback(self) -> None:
        self.client.get(self.answered).raise_for_status()

    def _post(self, address: str, **form: str) -> str:
        response = self.client.post(address, data={"csrf": self.csrf, **form})
        assert response.status_code == 303, (address, response.status_code)
        return str(response.headers["location"])


def measure(ask: Callable[[], object], studio: int, database: int | None, seconds: float) -> tuple[float, float]:
    """Return the milliseconds of the studio and of the database that one request takes."""

    def spent() -> tuple[float, float]:
        return processor_time([studio]), processor_time([*disturbances.family(database)]) if database else 0.0

    for _ in range(5):
        ask()
    before, end, count = spent(), time.monotonic() + seconds, 0
    while time.monotonic() < end and count < MOST:
        ask()
        count += 1
    after = spent()
    return (after[0] - before[0]) / count, (after[1] - before[1]) / count


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.studio.requests", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.5, help="for each kind of request")
    parser.add_argument("--proofs", type=float, default=12, help="seconds to wait for the answers to be computed")
    parser.add_argument("--sqlite", action="store_true", help="an SQLite file instead of PostgreSQL")
    options = parser.parse_args()
    table = Table("request", "studio ms", "database ms", title="processor time per request")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = None if options.sqlite else stack.enter_context(classroom._postgresql().server())
        database = cluster.database() if cluster else None
        with open_users(folder, database) as here:
            for kind in KINDS:
                account = here.accounts.invited(here.accounts.add(kind))
                assert account
                here.accounts.join(account, classroom.PASSWORD)
        items = [item.id for item in load(classroom.PACK).items.values() if FORMS.get(item.kind) == "options"]
        studio, base = stack.enter_context(classroom.studio(folder, database, 1, classroom.PACK))
        time.sleep(options.proofs)
        server = disturbances.postmaster_of(cluster) if cluster else None
        rows = {}
        for name in KINDS:
            browser = Browser(base, name, items)
            rows[name] = measure(getattr(browser, name), studio, server, options.seconds)
            table.add_row(name.replace("_", " "), *(f"{value:.2f}" for value in rows[name]))
    both = (a + b for a, b in zip(rows["question_and_answer"], rows["feedback"], strict=True))
    table.add_row("question, answer and feedback", *(f"{value:.2f}" for value in both))
    Console().print(table)


if __name__ == "__main__":
    main()
