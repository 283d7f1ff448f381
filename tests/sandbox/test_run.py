"""What a confined program can do, and that each limit stops it."""

import os
import threading
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.sandbox import Chunk, Limits, Program
from clearhead.sandbox.confinement import tmpfs
from clearhead.sandbox.limits import THREAD
from clearhead.sandbox.processes import watch

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")


def test_output_values_and_exit() -> None:
    outcome = sandbox.run("import sys; x = 1 / 3; print('out'); print('err', file=sys.stderr)", want=[("x", ".2f")])
    assert (outcome.stdout, outcome.stderr, outcome.exit_code, outcome.stopped) == ("out\n", "err\n", 0, None)
    assert outcome.ok
    assert outcome.values == {"x:.2f": "0.33"}


def test_an_exception_names_its_line_in_its_file() -> None:
    chunks = [Chunk("x = 1\n", "a.md", 5), Chunk("\ny = x / 0\n", "a.md", 10)]
    raised = sandbox.run(chunks).raised
    assert raised is not None
    assert (raised.type, raised.file, raised.line, raised.chunk) == ("ZeroDivisionError", "a.md", 11, 1)
    assert "ArithmeticError" in raised.kinds


def test_a_syntax_error_names_its_line() -> None:
    raised = sandbox.run([Chunk("x = 1\ny = (\n", "a.md", 7)]).raised
    assert raised is not None
    assert (raised.type, raised.line) == ("SyntaxError", 8)


def test_a_byte_order_mark_is_no_part_of_a_program() -> None:
    raised = sandbox.run([Chunk("\ufeffx = 1\nx / 0\n", "a.md", 7)]).raised
    assert raised is not None
    assert (raised.type, raised.line) == ("ZeroDivisionError", 8)


def test_exit_statuses() -> None:
    assert sandbox.run("import sys; sys.exit(0)").ok
    assert sandbox.run("import sys; sys.exit(3)").exit_code == 1
    assert sandbox.run("import os; os._exit(7)").exit_code == 7
    assert sandbox.run("import os, signal; os.kill(os.getpid(), signal.SIGTERM)").exit_code == -15


def test_stdin_and_files() -> None:
    source = "import sys; print(sys.stdin.read(), open('data/a.txt').read())"
    assert sandbox.run(source, stdin="in", files=[("data/a.txt", b"file")]).stdout == "in file\n"
    with pytest.raises(sandbox.SandboxError, match="outside"):
        sandbox.run(source, files=[("../a.txt", b"")])


@pytest.mark.parametrize(
    ("source", "stopped"),
    [
        ("while True: pass", "time"),
        ("import time; time.sleep(60)", "time"),
        ("x = bytearray(3 << 30)", "memory"),
        ("x = []\nwhile True: x.append(bytearray(1 << 20))", "memory"),
        ("import mmap\nm = mmap.mmap(-1, 400 << 20)\nfor i in range(0, len(m), 4096): m[i] = 1", "memory"),
        ("while True: print('x' * 4096)", "output"),
        (f"for i in range(40): open(str(i), 'wb').write(b'x' * {1 << 19})\nwhile True: pass", "disk"),
    ],
)
def test_each_limit_stops_it(source: str, stopped: str) -> None:
    outcome = sandbox.run(source, limits=Limits(seconds=4.0, memory=64 << 20))
    assert outcome.stopped == stopped
    assert not outcome.ok
    assert outcome.seconds < 20


def test_a_folder_that_may_not_be_read_is_not_searched_for_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers looks for an optional package by name; a folder of that name in a private place is none."""
    (tmp_path / "an_optional_package").mkdir()
    (tmp_path / "an_optional_package" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    program = "import importlib.util\nprint(importlib.util.find_spec('an_optional_package'))"
    outcome = sandbox.run(program, preload=("json",))
    assert outcome.stdout == "None\n", outcome


def test_two_salts_disagree_about_what_was_not_seeded() -> None:
    source = "import random; print(random.random(), sorted({'a', 'b', 'c'}, key=hash))"
    first, second = sandbox.run(source, salt=1).stdout, sandbox.run(source, salt=2).stdout
    assert first == sandbox.run(source, salt=1).stdout
    assert first != second


@pytest.mark.slow
def test_a_dead_worker_is_replaced() -> None:
    from clearhead.sandbox.processes import pool

    before = pool.worker()
    before.process.kill()
    before.process.wait()
    assert sandbox.run("print(1)").stdout == "1\n"
    assert pool.worker() is not before


def test_programs_run_together_as_they_do_alone() -> None:
    sources = [
        "x = 2; print('a', end=''); print('e', file=__import__('sys').stderr)",
        "print('x' in globals()); y = 1 / 3",
        "1 / 0",
        "import random; print(random.random())",
        "import sys; sys.exit(3)",
        "print('last')",
    ]
    programs = [Program((Chunk(source, f"{at}.py", 7),), (("y", ".2f"),)) for at, source in enumerate(sources)]
    found = sandbox.run_each(programs)
    assert found is not None
    alone = [sandbox.run(list(one.chunks), want=one.want) for one in programs]
    same = [(one.stdout, one.stderr, one.exit_code, one.raised, one.values) for one in found]
    assert same == [(one.stdout, one.stderr, one.exit_code, one.raised, one.values) for one in alone]


def test_random_numbers_drawn_by_one_program_change_none_of_the_next() -> None:
    draw = "import random, numpy; print(random.random(), numpy.random.rand())"
    found = sandbox.run_each([Program((Chunk(draw),))] * 3, preload=["numpy"])
    assert found is not None
    assert {one.stdout for one in found} == {sandbox.run(draw, preload=["numpy"]).stdout}


def test_torch_settings_do_not_travel_from_program_to_program() -> None:
    change = "import torch; torch.set_default_dtype(torch.float64); torch.set_grad_enabled(False); torch.rand(5)"
    look = "import torch; print(torch.ones(1).dtype, torch.is_grad_enabled(), torch.rand(1).item())"
    programs = [Program((Chunk(source),)) for source in (look, change, look)]
    found = sandbox.run_each(programs, preload=["torch"])
    assert found is not None
    assert found[0].stdout == found[2].stdout == sandbox.run(look, preload=["torch"]).stdout


@pytest.mark.parametrize(
    "source", ["import os; os._exit(0)", "while True: pass", "import os; os.close(1)", "import sys; sys.stdout = None"]
)
def test_a_program_that_ends_its_batch_is_reported(source: str) -> None:
    programs = [Program((Chunk(one),)) for one in ("print(1)", source, "print(2)")]
    assert sandbox.run_each(programs, limits=Limits(seconds=2.0)) is None


def test_one_program_of_a_batch_may_take_no_longer_than_its_turn() -> None:
    programs = [Program((Chunk(one),)) for one in ("print(1)", "import time\nwhile True: time.sleep(0.1)")]
    assert sandbox.run_each(programs, limits=Limits(seconds=3600.0), time_each=0.5) is None


@pytest.mark.parametrize("source", ["builtins.len = max", "del builtins.print", "import math; math.pi = 3"])
def test_a_program_that_replaces_what_all_share_ends_its_batch(source: str) -> None:
    assert sandbox.run_each([Program((Chunk(one),)) for one in ("x = 1", f"import builtins\n{source}")]) is None


def test_a_thread_counts_as_memory() -> None:
    """The kernel's part of a thread is in no count of memory, and a machine may have 32,768 of them in all."""
    wait, before = threading.Event(), watch.resident(os.getpid())
    threads = [threading.Thread(target=wait.wait) for _ in range(29)]
    for thread in threads:
        thread.start()
    after = watch.resident(os.getpid())
    wait.set()
    for thread in threads:
        thread.join()
    assert before is not None
    assert after is not None
    assert after - before >= 29 * THREAD


@pytest.mark.skipif("landlock" not in [one.name for one in sandbox.available()], reason="no Landlock here")
def test_the_kernel_counts_threads_in_a_user_namespace() -> None:
    if not tmpfs.offered():
        pytest.skip("the kernel gives no user namespace here")
    limit = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC))"
    assert sandbox.run(limit, limits=Limits(memory=64 * THREAD), name="landlock").stdout == "(64, 64)\n"
    start = "import threading, time\nfor _ in range(80): threading.Thread(target=time.sleep, args=(9,)).start()"
    ended = sandbox.run(start, limits=Limits(memory=64 * THREAD), name="landlock")
    refused = ended.raised is not None and "can't start new thread" in ended.raised.message
    assert ended.stopped == "memory" or refused, ended
