"""`--workers N`: collect once, then run the tests in N forks of this process.

Each worker of pytest-xdist imports and collects everything again: 33 s of processor time for the full tier, and minutes
where what is installed is compiled as it is imported. A fork has it already. Where a process cannot be forked safely
(macOS, Windows) the Makefile takes xdist.
"""

import atexit
import gc
import multiprocessing
import os
from collections.abc import Iterator
from itertools import groupby
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

from processor_time import listed

CHUNK = 60  # tests that a worker takes at a time, of one file: enough for what a file sets up, few enough to share out


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=0, help="run the tests in so many forks of this process")


def pytest_configure(config: pytest.Config) -> None:
    """Before torch is imported: a fork has the pool of threads that its parent made, but no thread, and waits for ever."""
    if config.getoption("--workers"):
        os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    count = session.config.getoption("--workers")
    if not count or session.testsfailed or session.config.option.collectonly or not session.items:
        return None  # pytest's own loop
    Run(session, count).run()
    return True


def chunks(items: list[pytest.Item]) -> list[list[int]]:
    """The indices of tests that one worker runs in a row: those of a file, or a part of them; long ones come first."""
    long = {name.partition("::")[0] for name in listed()}
    parts = []
    for path, group in groupby(range(len(items)), lambda index: items[index].path):
        indices = list(group)
        first = path.as_posix().rpartition("/tests/")[2] not in long
        parts += [(first, indices[start : start + CHUNK]) for start in range(0, len(indices), CHUNK)]
    return [part for _, part in sorted(parts, key=lambda part: part[0])]


class Run:
    """The parent: hands out chunks, and passes on what the workers report as if the tests had run here."""

    def __init__(self, session: pytest.Session, count: int) -> None:
        self.session, self.count = session, count
        self.left = chunks(session.items)[::-1]
        self.workers: dict[Connection, Worker] = {}

    def run(self) -> None:
        config = self.session.config
        config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # one folder for all workers
        if terminal := config.pluginmanager.getplugin("terminalreporter"):
            terminal.showfspath = False  # a letter for each test, with no path before it: files take turns
        gc.collect()
        gc.freeze()  # what was imported and collected is looked at by no collection of garbage, and so never copied
        try:
            for _ in range(self.count):
                self.start()
            while self.workers:
                for connection in wait(list(self.workers)):
                    self.hear(connection)  # type: ignore[arg-type]
                if self.session.shouldfail:
                    raise self.session.Failed(self.session.shouldfail)
                if self.session.shouldstop:
                    raise self.session.Interrupted(self.session.shouldstop)
        finally:
            for worker in self.workers.values():
                worker.process.terminate()
                worker.process.join()

    def start(self) -> None:
        here, there = multiprocessing.Pipe()
        worker = Worker(multiprocessing.get_context("fork").Process(target=work, args=(self.session, there, here)))
        worker.process.start()
        there.close()
        self.workers[here] = worker

    def hear(self, connection: Connection) -> None:
        worker, hook = self.workers[connection], self.session.config.hook
        try:
            kind, value = connection.recv()
        except EOFError:
            self.end(connection)
            return
        if kind == "next":
            chunk = self.left.pop() if self.left else []
            worker.todo += chunk
            connection.send(chunk)
        elif kind == "finish":
            worker.todo.remove(value)
            item = self.session.items[value]
            hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        else:
            report = hook.pytest_report_from_serializable(config=self.session.config, data=value)
            hook.pytest_runtest_logreport(report=report)

    def end(self, connection: Connection) -> None:
        """A worker has ended: if something is left of what it took, the first of it has killed it."""
        worker = self.workers.pop(connection)
        worker.process.join()
        if not worker.todo:
            return
        killer, *rest = worker.todo
        item = self.session.items[killer]
        message = f"the process that ran this test ended with status {worker.process.exitcode}"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", message, "call")  # type: ignore[arg-type]
        self.session.config.hook.pytest_runtest_logreport(report=report)
        if rest:
            self.left.append(rest)
        self.start()


class Worker:
    """A process and what it took and has not finished, in order."""

    def __init__(self, process: Any) -> None:
        self.process = process
        self.todo: list[int] = []


def work(session: pytest.Session, connection: Connection, parents: Connection) -> None:
    """A worker: runs chunk after chunk, and tells each report."""
    parents.close()
    config, items = session.config, session.items
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.stop_global_capturing()
    capture.start_global_capturing()  # in files of its own: the parent's would be shared
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(Reporter(config, connection))
    indices = _indices(connection)
    index = next(indices, None)
    while index is not None:
        # Asked for before the test runs, so that it tears down only what the next one does not use.
        following = next(indices, None)
        config.hook.pytest_runtest_protocol(item=items[index], nextitem=None if following is None else items[following])
        connection.send(("finish", index))
        index = following
    config._ensure_unconfigure()  # its browser, its servers
    connection.close()
    atexit._run_exitfuncs()  # confined workers, scratch files
    os._exit(0)  # no thread that a test left is awaited


def _indices(connection: Connection) -> Iterator[int]:
    while True:
        connection.send(("next", os.getpid()))
        chunk = connection.recv()
        if not chunk:
            return
        yield from chunk


class Reporter:
    """Sends a worker's reports to the parent."""

    def __init__(self, config: pytest.Config, connection: Connection) -> None:
        self.config, self.connection = config, connection

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self.config.hook.pytest_report_to_serializable(config=self.config, report=report)
        self.connection.send(("report", data))
