"""Ctrl-C while `clearhead` starts, pressed at given imports: a moment that does not depend on how fast the machine is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clearhead.cli import exit_status

SOURCE = Path(__file__).parents[2] / "src"
# Runs the console script as pip writes it, and sends SIGINT when `main` first looks for a module; or lists the modules.
PROGRAM = """
import _signal, os, sys  # `signal` is one of the modules that the command imports
moment, action = sys.argv[1:]
_signal.signal(_signal.SIGINT, _signal.SIG_IGN if action == "ignore" else _signal.default_int_handler)
sys.argv = ["clearhead", "--version"]
from clearhead.__main__ import main
seen = []
def pressed(event, arguments):
    if event == "import" and arguments[0] not in seen:
        seen.append(arguments[0])
        if arguments[0] == moment:
            os.kill(os.getpid(), _signal.SIGINT)
sys.addaudithook(pressed)
try:
    sys.exit(main())
finally:
    if moment == "":
        print(*seen, sep="\\n")
"""
# Imported before `main` runs: until then Python itself answers Ctrl-C, with a traceback.
BEFORE = {"clearhead", "__future__", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings",
          "clearhead.hooks", "clearhead.registration", "clearhead.__main__"}  # fmt: skip


def start(moment: str, action: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", PROGRAM, moment, action], capture_output=True, text=True)


def modules() -> list[str]:
    """What `main` imports, in that order."""
    done = start("")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[1:]  # the first line is the version


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_at_any_import_ends_in_a_word_and_a_status() -> None:
    after = modules()
    assert {"signal", "clearhead.errors", "clearhead.cli", "typer"} <= set(after)
    for name in [*after[:3], *after[3 :: len(after) // 6], after[-1]]:
        done = start(name)
        assert (done.returncode, done.stdout, done.stderr) == (exit_status.STOPPED, "", "stopped\n"), name


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_does_not_end_a_command_that_a_shell_runs_in_the_background() -> None:
    done = start("clearhead.cli", "ignore")
    assert (done.returncode, done.stderr) == (0, "")


def test_little_is_imported_before_ctrl_c_is_caught() -> None:
    """Python imports `os` itself; `typing`, `pathlib` or `re` would each take longer than all of these."""
    program = (
        f"import os, sys; sys.path.insert(0, {str(SOURCE)!r}); before = set(sys.modules); import clearhead.__main__; "
        "print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= BEFORE
