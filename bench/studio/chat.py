"""The Lens on a chat of 2,000 tokens: `python -m bench.studio.chat`.

Starts a studio, reads the text with the chat model, and requests tiles and links through a real socket, as a user who
zooms does. Prints the 95th percentile of each. `--writing` also measures how long writing a token takes after the text.
"""

import argparse
import http.client
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from statistics import quantiles
from typing import Any
from urllib.parse import urlencode

import torch
import uvicorn

from clearhead.local_models.chat_model import CHAT_NAME
from clearhead.studio.app.application import create
from clearhead.studio.app.serving import take_port
from clearhead.studio.library.library import Library
from clearhead.studio.web.settings import Settings

SENTENCE = "The keeper of the light wrote down what the weather did, hour by hour, and nobody ever read a word of it. "
LIMIT = 0.05  # seconds for the 95th percentile of a tile
REQUESTS = 60


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.studio.chat", description=__doc__)
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--writing", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder, take_port("127.0.0.1", 0) as listener:
        studio = create(Settings(data=Path(folder), token=""), Library((), {}))
        server = uvicorn.Server(uvicorn.Config(studio, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            measure(listener.getsockname()[1], options)
        finally:
            server.should_exit = True
            thread.join()


def measure(port: int, options: Any) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    text = SENTENCE * (options.tokens // 23)

    def get(path: str, **fields: Any) -> bytes:
        connection.request("GET", f"{path}?{urlencode(fields)}")
        return connection.getresponse().read()

    connection.request("GET", "/lens")
    reply = connection.getresponse()
    page = reply.read().decode()
    token = page.partition('name="csrf" content="')[2].partition('"')[0]
    headers = {
        "x-csrf-token": token,
        "content-type": "application/json",
        "cookie": (reply.getheader("set-cookie") or "").partition(";")[0],
    }

    def post(path: str, **fields: Any) -> list[bytes]:
        connection.request("POST", path, json.dumps({"model": CHAT_NAME, **fields}), headers)
        return connection.getresponse().read().splitlines()

    start = time.perf_counter()
    last = json.loads(post("/lens/read", text=text)[-1])
    key, size = last["key"], len(last["payload"]["tokens"])
    took_all, megabytes = time.perf_counter() - start, len(json.dumps(last)) / 1e6
    print(f"reading {size} tokens, 30 layers of 9 heads: {took_all:.2f} s, {megabytes:.1f} MB")
    draw = random.Random(0)  # noqa: S311 — which tiles are requested
    took: dict[str, list[float]] = {"tile": [], "links of a query": [], "links to a key": []}
    place = {"layer": 0, "head": 0}
    for number in range(REQUESTS):
        if number % 5 == 0:  # a user zooms into one head for a while
            place = {"layer": draw.randrange(30), "head": draw.randrange(9)}
        side = draw.choice([64, 256, 512, 1024, size])
        row, col = (draw.randrange(0, size - side + 1) for _ in range(2))
        questions = {
            "tile": {"kind": "tile", "rows": [row, row + side], "cols": [col, col + side], "cells": 256},
            "links of a query": {"kind": "links", "token": draw.randrange(size), "side": "query"},
            "links to a key": {"kind": "links", "token": draw.randrange(size), "side": "key"},
        }
        for name, question in questions.items():
            start = time.perf_counter()
            answer = json.loads(get("/lens/answer", key=key, question=json.dumps({**question, **place})))
            took[name].append(time.perf_counter() - start)
            if "error" in answer:
                raise SystemExit(answer["error"])
    for name, seconds in took.items():
        p95 = quantiles(seconds, n=20)[-1]
        print(f"{name}: median {sorted(seconds)[len(seconds) // 2] * 1e3:.1f} ms, p95 {p95 * 1e3:.1f} ms")
    if options.writing:
        start = time.perf_counter()
        lines = [json.loads(line) for line in post("/lens/write", prompt=text, count=20)]
        count = sum("token" in line for line in lines)
        print(f"{count} tokens written after it: {time.perf_counter() - start:.2f} s")
    if quantiles(took["tile"], n=20)[-1] > LIMIT:
        raise SystemExit(f"the 95th percentile of a tile is above {LIMIT * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
