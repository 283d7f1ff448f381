"""What a learner's program may do as on his own machine: read its own source, run asyncio, set a timer, use a file."""

import pytest

from clearhead import sandbox
from clearhead.sandbox import Chunk, Program

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")

CLASS = "class Head:\n    def width(self):\n        return 7\n"
DOUBLE = "def double(x):\n    return 2 * x\n"
HARMLESS = {
    "the source of a function": (f"import inspect\n{DOUBLE}print(inspect.getsource(double), end='')", DOUBLE),
    "the source of a class": (f"import inspect\n{CLASS}print(inspect.getsource(Head), end='')", CLASS),
    "the lines of a traceback": (
        "import traceback\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    print('    1 / 0\\n' in traceback.format_exc())",
        "True\n",
    ),
    "asyncio": (
        "import asyncio\nasync def one(x):\n    await asyncio.sleep(0.001)\n    return x\n"
        "async def both():\n    return await asyncio.gather(one(3), asyncio.to_thread(abs, -5))\nprint(asyncio.run(both()))",
        "[3, 5]\n",
    ),
    "a timer": (
        "import signal\nheard = []\nsignal.signal(signal.SIGALRM, lambda *_: heard.append(1))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.001)\n"
        "while not heard: pass\nsignal.alarm(1000)\nprint(signal.getitimer(signal.ITIMER_REAL)[0] > 900)",
        "True\n",
    ),
    "a temporary file": (
        "import tempfile\nwith tempfile.TemporaryFile('w+') as file:\n"
        "    file.write('kept')\n    file.seek(0)\n    print(file.read())",
        "kept\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("backend", [one.name for one in sandbox.available()])
@pytest.mark.parametrize("does", HARMLESS)
def test_it_works_as_unconfined(does: str, backend: str) -> None:
    source, printed = HARMLESS[does]
    outcome = sandbox.run(source, name=backend)
    assert (outcome.raised, outcome.stdout) == (None, printed), outcome.stderr


def test_the_source_of_each_chunk_of_a_file_is_at_its_line() -> None:
    look = "import inspect\nprint(inspect.getsourcelines(double), inspect.getsourcelines(triple))"
    chunks = [Chunk(DOUBLE, "a.md", 5), Chunk("def triple(x): return 3 * x", "a.md", 11), Chunk(look, "b.md", 3)]
    expected = "(['def double(x):\\n', '    return 2 * x\\n'], 5) (['def triple(x): return 3 * x\\n'], 11)\n"
    assert sandbox.run(chunks).stdout == expected


def test_no_source_of_an_earlier_program_of_a_batch_is_left() -> None:
    long = Program((Chunk("def one():\n    x = 1\n    return x"),))
    short = Program((Chunk("import linecache; print(linecache.getlines(__file__)[1:])"),))
    found = sandbox.run_each([long, short])
    assert found is not None
    assert found[1].stdout == "[]\n"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import subprocess; subprocess.run(['ls'])", "confined here: they have no other processes"),
        ("import socket; socket.create_connection(('127.0.0.1', 80))", "no network"),
        ("open('/root/x', 'w')", "only files below their own folder"),
        ("breakpoint()", "nobody can type into this program. Print values instead"),
    ],
)  # fmt: skip
def test_what_is_refused_is_explained(source: str, says: str) -> None:
    raised = sandbox.run(source).raised
    assert raised is not None
    assert says in raised.message


def test_a_permission_error_of_the_programs_own_is_left_as_it_is() -> None:
    raised = sandbox.run("raise PermissionError('ask the owner')").raised
    assert raised is not None
    assert raised.message == "ask the owner"
