"""Limits that hold for all processes of one studio together, and end with the process that held them."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

import loops
from clearhead.studio.web.locks import EVERYBODY, Locks
from clearhead.studio.web.work_queues import WAITING, Busy, WorkQueue

HOLDER = """
import sys
from pathlib import Path
from clearhead.studio.web.locks import Locks
taken = Locks(Path(sys.argv[1])).take("lens", int(sys.argv[2]), 1)
print(taken is not None, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("owner", [EVERYBODY, -1, 0, 7, 2**31 - 1])
def test_as_many_places_as_there_are(tmp_path: Path, owner: int) -> None:
    here, there = Locks(tmp_path / "locks"), Locks(tmp_path / "locks")
    taken = [side.take("lens", owner, 3) for side in (here, there, here)]
    assert None not in taken
    assert there.take("lens", owner, 3) is None
    for other in (there.take("programs", owner, 1), there.take("lens", owner + 1, 1)):
        assert other is not None, "another kind and another owner have places of their own"
        os.close(other)
    for descriptor in taken:
        assert descriptor is not None
        os.close(descriptor)
    again = there.take("lens", owner, 1)
    assert again is not None
    os.close(again)
    assert (tmp_path / "locks").stat().st_size == 0
    assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_a_process_that_is_killed_holds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "locks"), "5"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "True\n"
        locks = Locks(tmp_path / "locks")
        assert locks.take("lens", 5, 1) is None
        holder.kill()
        holder.wait()
        taken = locks.take("lens", 5, 1)
        assert taken is not None
        os.close(taken)


async def _until(wanted: int, running: list[str]) -> None:

    while len(running) < wanted:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # another one would have begun by now


def test_queues_of_two_processes_have_one_limit(tmp_path: Path) -> None:
    """Two queues over one file are two processes: of all learners so many run, of each learner one."""

    here, there = (WorkQueue("tests", 2, Locks(tmp_path / "locks")) for _ in range(2))
    running: list[str] = []
    most = dict[str, int]()

    async def work(turns: WorkQueue, learner: int, ends: asyncio.Event) -> None:
        async with turns.slot(learner):
            running.append(f"{learner}")
            for name in ("all", f"{learner}"):
                now = len(running) if name == "all" else running.count(name)
                most[name] = max(most.get(name, 0), now)
            await ends.wait()
            running.remove(f"{learner}")

    async def all_of_them() -> list[object]:
        ends = asyncio.Event()
        mine = [asyncio.create_task(work(turns, 1, ends)) for turns in (here, there) * (1 + WAITING)]
        await _until(1, running)
        others = [asyncio.create_task(work(turns, number, ends)) for number in (2, 3, 4) for turns in (here, there)]
        await _until(2, running)
        ends.set()
        return await asyncio.gather(*mine, *others, return_exceptions=True)

    outcomes = loops.run(all_of_them())
    assert sum(isinstance(one, Busy) for one in outcomes) == 1 + WAITING, "of the eight of one learner"
    assert [one for one in outcomes if one is not None and not isinstance(one, Busy)] == []
    assert most["all"] == 2
    assert {most[str(learner)] for learner in (1, 2, 3, 4)} == {1}
    here.close()
    there.close()
