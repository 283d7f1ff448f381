"""The number of programs that run at once, and their memory, are bounded and fair between owners."""

import itertools
import random
import threading
from collections.abc import Iterator

import pytest

from clearhead import sandbox
from clearhead.errors import SandboxError
from clearhead.sandbox import Limits
from clearhead.sandbox.processes import gate, watch
from clearhead.sandbox.processes.gate import Gate, Reservation

MIB = 1 << 20


def granted(reservations: list[Reservation]) -> list[bool]:
    return [one.granted.is_set() for one in reservations]


def test_as_many_run_as_there_is_room_for() -> None:
    one = Gate(programs=3, memory=700)
    reservations = [one.ask(f"owner {n}", 1, 100) for n in range(5)]
    assert granted(reservations) == [True, True, True, False, False]
    assert one.running == (3, 300)
    one.leave(reservations[1])
    assert granted(reservations)[3:] == [True, False]
    for reservation in reservations:
        one.leave(reservation)
    assert one.running == (0, 0)


def test_memory_is_bounded_beside_the_count() -> None:
    one = Gate(programs=11, memory=700)
    reservations = [one.ask(f"owner {n}", 1, 300) for n in range(3)]
    assert granted(reservations) == [True, True, False]
    one.leave(reservations[0])
    assert granted(reservations)[2]


def test_an_owner_with_programs_running_gets_no_more_than_half() -> None:
    one = Gate(programs=8, memory=800)
    hostile = [one.ask("hostile", 1, 10) for _ in range(101)]
    assert sum(granted(hostile)) == 4
    assert one.ask("another", 1, 10).granted.is_set()
    large = [one.ask("large", 1, 300) for _ in range(2)]
    assert granted(large) == [True, False]


def test_an_owner_without_may_have_it_all() -> None:
    one = Gate(programs=2, memory=200)
    first = one.ask("ada", 2, 200)
    assert first.granted.is_set()
    second = one.ask("ada", 2, 200)
    assert not second.granted.is_set()
    one.leave(first)
    assert second.granted.is_set()


def test_owners_take_turns() -> None:
    one = Gate(programs=1, memory=100)
    first = one.ask("ada", 1, 1)
    waiting = [one.ask(owner, 1, 1) for owner in ("ada", "ada", "ada", "bob", "bob", "eve")]
    order = []
    running = first
    while running:
        one.leave(running)
        running = next(
            (reservation for reservation in waiting if reservation.granted.is_set() and reservation not in order), None
        )
        if running:
            order.append(running)
    assert [reservation.owner for reservation in order] == ["ada", "bob", "eve", "ada", "bob", "ada"]


def test_a_large_request_is_not_overtaken_for_ever() -> None:
    one = Gate(programs=4, memory=400)
    small = [one.ask(f"owner {n}", 1, 1) for n in range(3)]
    large = one.ask("large", 3, 1)
    late = [one.ask(f"late {n}", 1, 1) for n in range(7)]
    assert not large.granted.is_set()
    assert granted(late) == [False] * 7
    for reservation in small[:2]:
        one.leave(reservation)
    assert large.granted.is_set()


def test_a_caller_that_gave_up_holds_up_no_other() -> None:
    one = Gate(programs=1, memory=100)
    first, second, third = (one.ask(owner, 1, 1) for owner in ("ada", "bob", "eve"))
    one.leave(second)
    one.leave(first)
    assert third.granted.is_set()
    assert not second.granted.is_set()
    one.leave(second)
    assert one.running == (1, 1)


@pytest.mark.parametrize(("programs", "memory"), [(5, 1), (1, 401), (5, 401)])
def test_what_never_fits_is_refused(programs: int, memory: int) -> None:
    with pytest.raises(SandboxError, match=r"do not fit; all programs together get 4 and 400 bytes"):
        Gate(programs=4, memory=400).ask("ada", programs, memory)


@pytest.mark.parametrize("seed", range(7))
def test_no_order_of_events_breaks_the_bound_or_forgets_anybody(seed: int) -> None:
    draw, one = random.Random(seed), Gate(programs=7, memory=701)  # noqa: S311
    waiting: list[Reservation] = []
    running: list[Reservation] = []
    served: list[Reservation] = []
    for step in itertools.count():
        if step < 500 and draw.random() < 0.6:
            owner = f"owner {draw.randrange(5)}"
            waiting.append(one.ask(owner, draw.randrange(1, 4), draw.randrange(1, 400)))
        elif running:
            ended = running.pop(draw.randrange(len(running)))
            one.leave(ended)
            served.append(ended)
        elif step >= 500:
            break
        running += [reservation for reservation in waiting if reservation.granted.is_set()]
        waiting = [reservation for reservation in waiting if not reservation.granted.is_set()]
        assert sum(reservation.programs for reservation in running) == one.running[0] <= 7
        assert sum(reservation.memory for reservation in running) == one.running[1] <= 701
    assert not waiting
    assert len(served) > 200


@pytest.fixture
def small() -> Iterator[Gate]:
    before = gate.current()
    sandbox.capacity(programs=2, memory=3 * 1024 * MIB)
    yield gate.current()
    sandbox.capacity(before.programs, before.memory)


@pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
def test_every_way_to_run_programs_passes_the_gate(small: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    most = [0]
    resident = watch.resident

    def look(pid: int) -> int | None:
        most[0] = max(most[0], small.running[0])
        assert small.running[0] <= 2
        return resident(pid)

    monkeypatch.setattr(watch, "resident", look)
    chunk = sandbox.Chunk("x = 1")
    limits = Limits(seconds=10.0, memory=512 * MIB)
    done: list[object] = []
    calls = [
        lambda: sandbox.run("x = 1", limits=limits, owner="a"),
        lambda: sandbox.judge("x = 1", "assert learner.x == 1", limits=limits, owner="b"),
        lambda: sandbox.run_each([sandbox.Program((chunk,))] * 2, limits=limits, owner="c"),
        lambda: sandbox.judge_each([([chunk], [sandbox.Chunk("assert x == 1")])], limits=limits, owner="d"),
    ]
    threads = [threading.Thread(target=lambda call=call: done.append(call())) for call in calls * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 8
    assert None not in done
    assert most == [2]
    assert small.running == (0, 0)


@pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
def test_room_is_given_back_whatever_happens(small: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "resident", fail)
    for call in (lambda: sandbox.run("1"), lambda: sandbox.judge("1", "1")):
        with pytest.raises(KeyboardInterrupt):
            call()
        assert small.running == (0, 0)
    with pytest.raises(SandboxError, match="do not fit"):
        sandbox.run("1", limits=Limits(memory=4096 * MIB))


def test_what_a_program_may_take_counts_its_files_and_output() -> None:
    assert gate.needs(Limits(memory=100, disk=10, output=1), programs=3) == 333


@pytest.mark.parametrize("processes", [1, 2, 3, 64])
def test_processes_that_share_a_machine_get_a_part_each(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(gate, "_gate", gate.current())
    sandbox.share(1)
    whole = gate.current()
    sandbox.share(processes)
    part = gate.current()
    assert part.programs == max(2, whole.programs // processes)
    least = gate.needs(sandbox.Limits(), 2)
    assert least <= part.memory <= max(whole.memory // processes, 3 << 30)
