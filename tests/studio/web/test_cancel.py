"""A browser that disconnects stops its program: nothing is answered, and no try is counted."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from clearhead import sandbox
from clearhead.studio.web.work_queues import WorkQueue, needs_queue, queued

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}")
ENDLESS = "while True: pass"


def test_an_event_stops_the_programs_started_within() -> None:
    event = threading.Event()
    threading.Timer(0.2, event.set).start()
    with sandbox.cancelled_by(event), pytest.raises(sandbox.Cancelled):
        sandbox.run(ENDLESS, limits=sandbox.Limits(seconds=60))
    with sandbox.cancelled_by(event), pytest.raises(sandbox.Cancelled):
        sandbox.judge(ENDLESS, "assert True", limits=sandbox.Limits(seconds=60))
    assert sandbox.run("print(1)").ok  # outside of it nothing is stopped


def test_a_route_whose_browser_has_gone_stops_its_program() -> None:
    class Gone:
        def __init__(self) -> None:
            self.store = SimpleNamespace(learner=1)
            self.queues = {"programs": WorkQueue("programs", 1)}

        async def left(self) -> bool:
            return True

    @queued("programs")
    def route(context: Gone) -> str:
        needs_queue()
        sandbox.run(ENDLESS, limits=sandbox.Limits(seconds=60))
        return "an answer"

    with (
        ThreadPoolExecutor() as elsewhere,
        pytest.raises(sandbox.Cancelled),
    ):  # a browser test leaves a loop behind here
        elsewhere.submit(lambda: asyncio.run(route(context=Gone()))).result()  # type: ignore[arg-type]
