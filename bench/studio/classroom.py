"""A load test, a class at work on a shared studio: `.venv/bin/python -m bench.studio.classroom --learners 200`.

Starts a temporary PostgreSQL and a studio with its workers on 127.0.0.1, and learners in separate processes. All log in
within a minute and think for about eight seconds per page; a fifth run programs, and one is hostile. In the middle a
worker, the sandbox or the database can be killed, and the disk can be full. Prints the 95th percentile of each page,
the processor seconds of both sides, how many attempts were lost, doubled or misjudged, and for each disturbance the
processes it reached and the answers accepted after it. Everything ends by itself.
"""

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import quantiles
from typing import Any

from bench.studio.disturbances import PROGRAMS, Reached, disturbances, family
from bench.studio.learners import Plan, Seen
from clearhead.course import load
from clearhead.studio.accounts.users import open_users
from clearhead.studio.learner.database import Database
from clearhead.studio.learner.tables import attempts, learners
from clearhead.studio.questions.question import FORMS

ROOT = Path(__file__).parents[2]
PACK = ROOT / "tests" / "packs" / "good"
PASSWORD = "a classroom of learners"  # noqa: S105 — accounts that exist for minutes
LIMITS = {200: 0.2, 500: 0.5}  # learners -> limit in seconds for the 95th percentile of a page
MOST, LONGEST = 1000, 1800  # learners; seconds
SERVER = """
import json, sys
from pathlib import Path
from clearhead.studio.app import serving as serve
from clearhead.studio.web.settings import Settings
given = json.loads(sys.argv[1])
serve.serve(Settings(data=Path(given["data"]), host="127.0.0.1", port=0, accounts=True, database=given["database"],
                     workers=given["workers"], packs=(Path(given["pack"]),)), browser=False)
"""


@contextmanager
def studio(folder: Path, database: str | None, workers: int, pack: Path) -> Iterator[tuple[int, str]]:
    """Start a studio; give its process id and address."""
    given = {"data": str(folder), "database": database, "workers": workers, "pack": str(pack)}
    command = [sys.executable, "-u", "-c", SERVER, json.dumps(given)]
    with (folder / "errors").open("w") as errors:
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
    assert running.stdout is not None
    reader = threading.Thread(target=running.stdout.read, daemon=True)  # for what it prints after it has started
    try:
        said = ""
        for line in running.stdout:
            said += line
            if found := re.search(r"Clearhead studio: (http://[\d.]+:\d+)", line):
                reader.start()
                yield running.pid, found[1]
                break
        else:
            raise SystemExit(f"the studio did not start: {said}{(folder / 'errors').read_text()}")
    finally:
        running.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            running.wait(20)
        running.kill()
        running.wait()
        if reader.ident is not None:
            reader.join()
        running.stdout.close()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the whole lesson and return the report."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cluster = None if options.sqlite else stack.enter_context(_postgresql().server())
        database = cluster.database() if cluster else None
        names = [f"learner{number}" for number in range(options.learners)]
        with open_users(folder, database) as here:
            for name in (*names, "hostile"):
                account = here.accounts.invited(here.accounts.add(name))
                assert account
                here.accounts.join(account, PASSWORD)
        pack = load(options.pack)
        items = [item.id for item in pack.items.values() if FORMS.get(item.kind) == "options"]
        topic = next(item for item in pack.items.values() if item.kind == "predict").topic
        tries = (f"/topics/{pack.id}/{topic}/try", items[0])
        code = next(item for item in pack.items.values() if item.kind == "code")
        solution = (code.id, code.role("solution")[0].source)
        server, base = stack.enter_context(
            studio(folder, database, 1 if options.sqlite else options.workers, options.pack)
        )
        time.sleep(options.proofs)
        until = time.time() + options.login + options.seconds
        shares = [names[place :: options.clients] for place in range(options.clients)]
        clients = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "bench.studio.learners"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            for _ in shares
        ]
        stack.callback(lambda: [client.kill() for client in clients])
        for place, (client, share) in enumerate(zip(clients, shares, strict=True)):
            hostile = "hostile" if place == 0 and not options.peaceful else ""
            plan = Plan(
                base=base,
                names=share,
                password=PASSWORD,
                programs=len(share) // 5,
                hostile=hostile,
                items=items,
                tries=tries,
                solution=solution,
                within=options.login,
                thinking=options.thinking,
                until=until,
            )
            assert client.stdin
            client.stdin.write(json.dumps(asdict(plan)))
            client.stdin.close()
            client.stdin = None
        acts = disturbances(options, server, cluster)
        done: dict[str, tuple[Reached, float]] = {}  # name -> what it reached, when it ended
        for place, (name, act) in enumerate(acts.items()):
            time.sleep(max(0.0, (until - time.time()) / (len(acts) + 1 - place)))
            done[name] = act(), time.time()
        seen = [Seen(**json.loads(client.communicate(timeout=LONGEST + 120)[0])) for client in clients]
        used = _processor_seconds(server)
        kept = _kept(folder, database, code.id)
    return _report(seen, kept, used, done)


def _processor_seconds(server: int) -> dict[str, float]:
    """The studio's processor seconds for pages and for programs, which run in child processes of the workers."""
    pages = programs = 0.0
    for line, own, ended in family(server).values():
        if PROGRAMS in line:
            programs += own + ended
        else:
            pages, programs = pages + own, programs + ended
    return {"pages": round(pages, 1), "programs": round(programs, 1)}


def _kept(folder: Path, database: str | None, code: str) -> dict[str, bool]:
    """Every attempt in the database, "name id" -> whether a right program (for the item `code`) was judged wrong."""
    from sqlalchemy import and_, select

    wrong = and_(attempts.c.item_id == code, attempts.c.correct.is_(False))
    query = select(learners.c.name, attempts.c.id, wrong).join(attempts, attempts.c.learner == learners.c.id)
    there = Database(folder, database)
    try:
        with there.autocommit() as connection:
            return {f"{name} {id}": wrong for name, id, wrong in connection.execute(query)}
    finally:
        there.close()


def _report(
    seen: list[Seen], kept: dict[str, bool], server: dict[str, float], done: dict[str, tuple[Reached, float]]
) -> dict[str, Any]:
    took: dict[str, list[float]] = {}
    errors: dict[str, int] = {}
    for one in seen:
        for kind, seconds in one.took.items():
            took.setdefault(kind, []).extend(seconds)
        for what, count in one.errors.items():
            errors[what] = errors.get(what, 0) + count
    answered = {attempt: at for each in seen for attempt, at in each.answered.items()}
    sent = Counter(name for each in seen for name in each.sent)
    counted = Counter(attempt.split()[0] for attempt in kept)
    p95 = {kind: quantiles(seconds, n=20)[-1] if len(seconds) > 1 else seconds[0] for kind, seconds in took.items()}
    return {
        "p95": {kind: round(value, 4) for kind, value in sorted(p95.items())},
        "requests": {kind: len(seconds) for kind, seconds in sorted(took.items())},
        "answered": len(answered),
        "lost": len(set(answered) - set(kept)),
        "misjudged": sum(kept.values()),  # right programs that were judged wrong
        "doubled": (counted - sent).total(),  # stored in addition to the questions that their learner answered
        "disturbed": {
            name: {"hit": hit, "answered after": sum(at > over for at in answered.values())}
            for name, (hit, over) in done.items()
        },
        "errors": errors,
        "cpu": {"clients": round(sum(one.cpu for one in seen), 1), **server},
    }


def _postgresql() -> Any:
    """The tests' temporary server."""
    spec = importlib.util.spec_from_file_location("postgresql", ROOT / "tests" / "studio" / "postgresql.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.studio.classroom", description="Put a class to work on a studio."
    )
    parser.add_argument("--learners", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=180, help="how long they work after all are logged in")
    parser.add_argument("--login", type=float, default=60, help="seconds within which all log in")
    parser.add_argument("--thinking", type=float, default=8, help="seconds of thought before each answer")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clients", type=int, default=2, help="processes of learners")
    parser.add_argument("--pack", type=Path, default=PACK)
    parser.add_argument("--proofs", type=float, default=30, help="seconds to wait for the answers to be computed")
    parser.add_argument("--sqlite", action="store_true", help="one process on an SQLite file")
    parser.add_argument("--peaceful", action="store_true", help="nobody is hostile")
    for what in ("kill-worker", "kill-sandbox", "kill-database", "full-disk"):
        parser.add_argument(f"--{what}", action="store_true", help="in the middle")
    options = parser.parse_args(words)
    options.learners = min(options.learners, MOST)
    options.seconds = min(options.seconds, LONGEST)
    return options


def main() -> int:
    """Print the report as JSON and return the exit status.

    The status is 1 if an attempt was lost, doubled or misjudged, a disturbance reached nothing or stopped the service,
    or a page was too slow for this many learners.
    """
    options = parsed()
    report = run(options)
    print(json.dumps(report, indent=2))
    most = next((seconds for count, seconds in LIMITS.items() if options.learners <= count), 1.0)
    pages = [report["p95"].get(kind, 0.0) for kind in ("home", "question", "answer", "feedback")]
    survived = all(min(each["hit"].values()) and each["answered after"] for each in report["disturbed"].values())
    wrong = report["lost"] or report["doubled"] or report["misjudged"]
    return int(bool(wrong) or not survived or max(pages) > most)


if __name__ == "__main__":
    sys.exit(main())
