"""Two back ends behind one interface, and what happens without one."""

import contextlib
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.errors import SandboxError
from clearhead.sandbox import Limits, backends
from clearhead.sandbox.confinement import confine, landlock
from clearhead.sandbox.processes import bubblewrap, pool

NAMES = [one.name for one in sandbox.available()]
SHORT = Limits(seconds=1.0, memory=128 << 20)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that can confine nothing."""
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(bubblewrap, "works", lambda: False)


@pytest.mark.slow
@pytest.mark.skipif(not NAMES, reason="no back end here")
@pytest.mark.parametrize("name", NAMES)
def test_every_back_end_keeps_the_contract(name: str) -> None:
    program = "import os, sys\nprint(sys.stdin.read(), open('a').read(), sorted(os.listdir('.')))\nx = 2 / 3"
    done = sandbox.run(program, stdin="in", files=[("a", b"file")], want=[("x", ".2f")], name=name)
    assert (done.stdout, done.values, done.ok) == ("in file ['a']\n", {"x:.2f": "0.67"}, True)
    assert sandbox.run("1 / 0", name=name).raised.type == "ZeroDivisionError"  # type: ignore[union-attr]
    assert sandbox.run("import socket; socket.socket()", name=name).raised.type == "PermissionError"  # type: ignore[union-attr]
    assert not sandbox.run("open('/etc/passwd')", name=name).ok
    assert not sandbox.run("import os; os.fork()", name=name).ok
    assert sandbox.run("while True: pass", limits=SHORT, name=name).stopped == "time"
    assert sandbox.run("x = bytearray(1 << 30)", limits=SHORT, name=name).stopped == "memory"
    assert sandbox.run("import ctypes; ctypes.string_at(0)", name=name).exit_code == -11
    assert sandbox.judge("def f(x): return 2 * x", "assert f(4) == 8", name=name).passed
    assert not sandbox.judge("def f(x): return 3 * x", "assert f(4) == 8", name=name).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [80, 82, 84, 86])
def test_programs_start_from_a_process_with_a_hundred_open_files(name: str, first: int) -> None:
    """The descriptors of a program straddle 100, where the child moves them first."""
    opened: list[int] = []
    with contextlib.ExitStack() as stack:
        while not opened or opened[-1] < first:
            opened.append(os.open(os.devnull, os.O_RDONLY))
            stack.callback(os.close, opened[-1])
        done = sandbox.run("x = 2", want=[("x", "")], name=name)
    assert (done.stopped, done.values) == (None, {"x": "2"}), done


LOOK = """
import json, os
written = []
for place in ("/new", "/tmp/new", "/etc/new", "/usr/new", "/proc/new", "/dev/new", "/dev/shm/new", "/home", "new"):
    try:
        os.mkdir(place)
    except OSError:
        continue
    written.append(place)
print(json.dumps({
    "root": os.listdir("/"), "tmp": os.listdir("/tmp"), "beside": os.listdir(".."), "etc": os.listdir("/etc"),
    "processes": [int(one) for one in os.listdir("/proc") if one.isdigit()], "me": os.getpid(), "here": os.getcwd(),
    "environment": [row.partition("=")[0] for row in open("/proc/self/environ").read().split(chr(0)) if row],
    "written": written,
}))
"""


@pytest.mark.slow
@pytest.mark.skipif(not NAMES, reason="no back end here")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("first", [84, 86, 88])
def test_programs_start_whatever_numbers_the_descriptors_have(name: str, first: int) -> None:
    """A studio with a hundred connections opens its pipes at numbers of a hundred."""
    with ExitStack() as held:
        while (file := held.enter_context(Path(os.devnull).open())).fileno() < first - 1:
            pass
        program = "import os, sys\nos.write(2, b'err')\nprint(sys.stdin.read())\nx = 1"
        done = sandbox.run(program, stdin="in", want=[("x", "")], name=name)
        assert (done.stdout, done.stderr, done.values) == ("in\n", "err", {"x": "1"}), file
        assert sandbox.judge("def f(x): return 2 * x", "assert learner.f(4) == 8", name=name).passed


@pytest.mark.skipif("bubblewrap" not in NAMES, reason="bubblewrap is not installed, or may make no namespaces here")
def test_what_bubblewrap_shows_of_root_tmp_and_processes_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five attacks may list what Landlock would hide. What they see: bound paths, themselves, nothing of ours."""
    monkeypatch.setenv("CLEARHEAD_TEST_SECRET", "token")
    neighbour = tempfile.mkdtemp(prefix="clearhead-run-")
    done = sandbox.run(LOOK, name="bubblewrap")
    Path(neighbour).rmdir()
    assert done.ok, done.raised
    shown = json.loads(done.stdout)
    bound = {*confine.readable(), Path(sys.executable), Path(sys.executable).resolve(), Path(shown["here"])}
    assert set(shown["root"]) <= {path.parts[1] for path in bound} | {"proc", "dev"}
    assert Path(neighbour).name not in shown["tmp"]
    temporary = Path(shown["here"]).parent
    under = {
        path.relative_to(temporary).parts[0] for path in bound if path.is_relative_to(temporary)
    }  # Python may be here
    assert set(shown["beside"]) <= under
    assert set(shown["etc"]) <= {"ld.so.cache", "localtime"}
    assert shown["processes"] == [shown["me"]] == [1]
    assert set(shown["environment"]) <= {*pool.clean_environment(Path()), "PWD"}
    assert shown["written"] == ["new"]


def test_an_unknown_back_end() -> None:
    with pytest.raises(SandboxError, match="no back end 'docker' here"):
        sandbox.run("1", name="docker")


@pytest.mark.usefixtures("bare")
def test_without_a_back_end_nothing_is_run() -> None:
    assert sandbox.backend() is None
    assert "none: needs Linux 6.2" in sandbox.explain()
    for call in (lambda: sandbox.run("1"), lambda: sandbox.judge("1", "1")):
        with pytest.raises(SandboxError, match="no program of a pack or learner is run"):
            call()


@pytest.mark.usefixtures("bare")
def test_only_consent_lets_programs_run_unconfined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_consented", False)
    sandbox.consent()
    assert sandbox.backend() == backends.UNCONFINED
    assert sandbox.run("print(open('/etc/passwd').read(4))").stdout == "root\n"
    assert sandbox.run("while True: pass", limits=SHORT).stopped == "time"


@pytest.mark.usefixtures("bare")
def test_shared_use_refuses_to_run_unconfined_whatever_was_consented_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_consented", False)
    sandbox.consent()
    with pytest.raises(SandboxError, match=r"cannot be confined here.*none: needs Linux"):
        sandbox.must_confine()


@pytest.mark.skipif(not NAMES, reason="no back end here")
def test_shared_use_may_run_where_programs_are_confined() -> None:
    sandbox.must_confine()


@pytest.mark.skipif("landlock" not in NAMES, reason="no Landlock here")
def test_consent_changes_nothing_where_programs_can_be_confined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_consented", False)
    sandbox.consent()
    assert sandbox.backend().name == "landlock"  # type: ignore[union-attr]
    assert not sandbox.run("open('/etc/passwd')").ok
