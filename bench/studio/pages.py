"""The time and size of the studio's pages: `.venv/bin/python -m bench.studio.pages`.

With a database of 10,000 attempts on the shipped course, each page is requested 40 times, in turn with the others and
always just after an answer; the pages include tiles of the Lens on the induction model. Prints the median and the 95th
percentile of the time that a browser waits, through a real socket on a kept connection, and the size of the page with
its styles and modules, without pictures. No page should be above 30 ms or 100 kB.
"""

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_plus, urlencode

import httpx2
import uvicorn
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from clearhead.course import Attempt
from clearhead.studio.app import serving
from clearhead.studio.app.application import create
from clearhead.studio.learner.tables import attempts
from clearhead.studio.library.library import fill
from clearhead.studio.web.context import Context
from clearhead.studio.web.settings import Settings

COUNT, ROUNDS = 10_000, 40
TOPIC = "/topics/attention/attention-in-depth"
MODES = ("read", "why", "walk", "try", "sheet", "recall", "practice", "challenge", "experiment", "build", "test")
LIMIT_MS, LIMIT_KB = 30.0, 100.0


def seed(client: Any, count: int) -> list[str]:
    """Fill the store with a year of answers; return the ids of some attempts."""
    context = client.app.state.context
    draw, now = random.Random(0), datetime.now(UTC)  # noqa: S311 — made-up answers
    items = [item for item in context.library.items.values() if context.library.proved[item.id].options]
    rows = []
    for place in range(count):
        item = draw.choice(items)
        key = draw.choice(context.library.proved[item.id].options)
        rows.append(
            {
                "learner": 0, "id": str(uuid.UUID(int=draw.getrandbits(128))), "item_id": item.id, "item_rev": item.rev,
                "at": (now - timedelta(days=365) * (1 - place / count)).isoformat(), "mode": "practice",
                "correct": key.correct, "response": key.key, "seconds": draw.uniform(3, 90),
                "seed": context.library.proved[item.id].receipt.seed, "hints": 0,
                "confidence": draw.choice([None, 0.3, 0.5, 0.7, 0.9]),
                "undoes": None,
            }
        )  # fmt: skip
    with context.store.database.writing() as connection:
        connection.execute(insert(attempts), rows)
    return [str(row["id"]) for row in rows[-5:]]


def answer(context: Context) -> None:
    """Record an answer, so that whatever was computed from the attempts is out of date."""
    item = random.choice([item for item in context.library.items.values() if item.kind == "choice"])  # noqa: S311 — as above
    context.store.record(Attempt(str(uuid.uuid4()), item.id, item.rev, datetime.now(UTC), "practice", True, "a"))


def weight(client: httpx2.Client, address: str) -> float:
    """The kilobytes of the page, its styles and its modules, with their imports."""
    page = client.get(address)
    total, seen = len(page.content), set()
    wanted = re.findall(r'(?:href|src)="(/(?:static|views)/[^"]+\.(?:css|js))"', page.text)
    while wanted:
        if (file := wanted.pop()) not in seen:
            seen.add(file)
            content = client.get(file)
            total += len(content.content)
            wanted += [f"{file.rsplit('/', 1)[0]}/{name}" for name in re.findall(r'from "\./([^"]+)"', content.text)]
    return total / 1000


@contextmanager
def served(app: FastAPI, settings: Settings) -> Iterator[httpx2.Client]:
    """A browser's connection to the studio, which listens on a free port as `clearhead studio` does."""
    with serving.take_port("127.0.0.1", 0) as listener:
        server = uvicorn.Server(serving.config(app, settings))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            base = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with httpx2.Client(base_url=base, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()


def tiles(client: httpx2.Client) -> list[str]:
    """The addresses of tiles of the Lens, for a text that has been read."""
    text = "the lighthouse keeper wrote: the lighthouse keeper"
    about = {"model": "induction", "text": text}
    client.get("/lens/data", params=about).raise_for_status()
    tile = {"kind": "tile", "rows": [0, 4], "cols": [0, 4], "cells": 4}
    questions = [{**tile, "layer": layer, "head": head} for layer in (0, 1) for head in (0, 1)]
    return [f"/lens/answer?{urlencode({**about, 'question': json.dumps(one)})}" for one in questions]


def measure(client: httpx2.Client, context: Context, addresses: list[str]) -> dict[str, list[float]]:
    """The milliseconds of every request."""
    took: dict[str, list[float]] = {address: [] for address in addresses}
    for address in addresses:
        client.get(address)
    for _ in range(ROUNDS):
        for address in addresses:
            answer(context)
            began = time.perf_counter()
            response = client.get(address)
            took[address].append((time.perf_counter() - began) * 1000)
            assert response.status_code == 200, (address, response.status_code)
    return took


def main() -> None:
    """Print the table; exit with 1 if a page is over a limit."""
    parser = argparse.ArgumentParser(prog="python -m bench.studio.pages", description=__doc__)
    parser.add_argument("proofs", nargs="?", type=Path, help="a folder of proofs, which otherwise are computed first")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cache = options.proofs or Path(folder) / "proofs"
        settings = Settings(data=Path(folder))
        app = create(settings, fill(None, cache))
        context = app.state.context
        with served(app, settings) as client:
            ids = seed(SimpleNamespace(app=app), COUNT)
            addresses = [
                "/",
                "/progress",
                "/search?q=softmax",
                "/settings",
                "/review",
                "/lens",
                TOPIC,
                f"/attempts/{ids[0]}",
            ]
            addresses += [f"{TOPIC}/{mode}" for mode in (*MODES, "mistakes")]
            addresses += [f"{TOPIC}/{mode}/{uuid.uuid4()}" for mode in ("test", "challenge")]
            addresses += tiles(client)
            took = measure(client, context, addresses)
            table = Table("page", "median ms", "p95 ms", "kB", title=f"{COUNT:,} attempts, an answer before each page")
            over = False
            for address in addresses:
                p95, kilobytes = quantiles(took[address], n=20)[-1], weight(client, address)
                over |= p95 > LIMIT_MS or kilobytes > LIMIT_KB
                short = re.sub(r"[0-9a-f-]{36}", "…", unquote_plus(address))
                table.add_row(short, f"{median(took[address]):.1f}", f"{p95:.1f}", f"{kilobytes:.0f}")
    Console().print(table)
    sys.exit(over)


if __name__ == "__main__":
    main()
