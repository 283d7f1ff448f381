"""Serve one studio with several processes: one listening socket, one PostgreSQL database, one folder of proofs.

Shared state is in the database (sessions, log-in counts, attempts) or in the data folder (proofs, under a lock;
requests of the Lens). Each process keeps only what it can read again.
"""

import multiprocessing
import multiprocessing.connection
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from clearhead.studio.web.settings import Settings

GRACE = 6.0  # seconds for a worker to end by itself
AGAIN = 1.0  # seconds before a worker that died is started again, so that one that cannot start does not spin

Work = Callable[[Settings, socket.socket, int], None]


def run(work: Work, settings: Settings, listener: socket.socket, count: int) -> None:
    """Run `count` processes until Ctrl-C or SIGTERM; one that dies is started again."""
    # spawn, not fork: threads of this process (numpy's, the sandbox's) would be lost in a fork, with their locks held.
    context = multiprocessing.get_context("spawn")

    def start(number: int) -> BaseProcess:
        process = context.Process(target=_work, args=(work, settings, listener, number), name=f"worker {number}")
        process.start()
        return process

    with _stop_requests() as stop:
        running = [start(number) for number in range(count)]
        try:
            while stop not in multiprocessing.connection.wait([stop, *(process.sentinel for process in running)]):
                if multiprocessing.connection.wait([stop], AGAIN):
                    break
                for number, process in enumerate(running):
                    if not process.is_alive():
                        running[number] = start(number)
        finally:
            _end(running)


def _work(work: Work, settings: Settings, listener: socket.socket, number: int) -> None:
    """Run the work in a worker process, and end it when the parent process ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(settings, listener, number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)


def _end(running: list[BaseProcess]) -> None:
    for process in running:
        process.terminate()  # uvicorn finishes the requests under way
    for process in running:
        process.join(GRACE)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _stop_requests() -> Iterator[Connection]:
    """Return a connection that becomes readable at Ctrl-C and SIGTERM.

    Neither raises KeyboardInterrupt, which in the middle of starting a worker would leave a process that nobody ends
    and that Python waits for at exit.
    """
    stop, asked = multiprocessing.Pipe(duplex=False)
    before = {number: signal.signal(number, lambda *_: asked.send(None)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stop.close()
        asked.close()
