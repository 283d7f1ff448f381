"""How fast and how heavy the studio's pages are: `.venv/bin/python -m bench.studio`.

On a database of 10,000 attempts over the shipped course, each page is asked for 40 times in turn with the others, and
right after an answer each time. Printed: the median and the 95th percentile of the server's time (from the request's
first byte to the response's last, in this process, without a network), and the weight of the page with the styles and
modules it names, before pictures. No page should be above 30 ms or 100 kB.
"""

import random
import re
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert
from starlette.testclient import TestClient

from clearhead.course import Attempt
from clearhead.studio.app import create
from clearhead.studio.settings import Settings
from clearhead.studio.shelf import fill
from clearhead.studio.tables import attempts

COUNT, ROUNDS = 10_000, 40
TOPIC = "/topics/attention/attention-in-depth"
MODES = ("read", "why", "walk", "try", "sheet", "recall", "practice", "challenge", "experiment", "build", "test")
LIMIT_MS, LIMIT_KB = 30.0, 100.0


def seed(client: TestClient, count: int) -> list[str]:
    """Fill the store with a year of answers; gives some attempts' ids."""
    desk = client.app.state.desk  # type: ignore[attr-defined]
    draw, now = random.Random(0), datetime.now(UTC)  # noqa: S311 — made-up answers
    items = [item for item in desk.shelf.items.values() if desk.shelf.proved[item.id].options]
    rows = []
    for place in range(count):
        item = draw.choice(items)
        key = draw.choice(desk.shelf.proved[item.id].options)
        rows.append(
            {
                "learner": 0, "id": str(uuid.UUID(int=draw.getrandbits(128))), "item_id": item.id, "item_rev": item.rev,
                "at": (now - timedelta(days=365) * (1 - place / count)).isoformat(), "mode": "practice",
                "correct": key.correct, "response": key.key, "seconds": draw.uniform(3, 90),
                "seed": desk.shelf.proved[item.id].receipt.seed, "hints": 0,
                "confidence": draw.choice([None, 0.3, 0.5, 0.7, 0.9]),
                "undoes": None,
            }
        )  # fmt: skip
    with desk.store.database.writing() as connection:
        connection.execute(insert(attempts), rows)
    return [str(row["id"]) for row in rows[-5:]]


def answer(client: TestClient) -> None:
    """Somebody answers: what was worked out from the attempts is out of date now."""
    desk = client.app.state.desk  # type: ignore[attr-defined]
    item = random.choice([item for item in desk.shelf.items.values() if item.kind == "choice"])  # noqa: S311 — as above
    desk.store.record(Attempt(str(uuid.uuid4()), item.id, item.rev, datetime.now(UTC), "practice", True, "a"))


def weight(client: TestClient, address: str) -> float:
    """Kilobytes of the page, its styles and its modules, and what those import."""
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


def measure(client: TestClient, addresses: list[str]) -> dict[str, list[float]]:
    """Milliseconds of every request."""
    took: dict[str, list[float]] = {address: [] for address in addresses}
    for address in addresses:
        client.get(address)
    for _ in range(ROUNDS):
        for address in addresses:
            answer(client)
            began = time.perf_counter()
            response = client.get(address)
            took[address].append((time.perf_counter() - began) * 1000)
            assert response.status_code == 200, (address, response.status_code)
    return took


def main() -> None:
    """Print the table; exit 1 where a page is over a limit."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(folder) / "proofs"
        app = create(Settings(data=Path(folder)), fill(None, cache))
        with TestClient(app, base_url="http://127.0.0.1") as client:
            ids = seed(client, COUNT)
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
            took = measure(client, addresses)
            table = Table("page", "median ms", "p95 ms", "kB", title=f"{COUNT:,} attempts, an answer before each page")
            over = False
            for address in addresses:
                p95, kilobytes = quantiles(took[address], n=20)[-1], weight(client, address)
                over |= p95 > LIMIT_MS or kilobytes > LIMIT_KB
                short = re.sub(r"[0-9a-f-]{36}", "…", address)
                table.add_row(short, f"{median(took[address]):.1f}", f"{p95:.1f}", f"{kilobytes:.0f}")
    Console().print(table)
    sys.exit(over)


if __name__ == "__main__":
    main()
