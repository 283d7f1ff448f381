"""A command as a process of its own: its status and streams, a fault, a warning."""

import subprocess
import sys
from pathlib import Path

import pytest

import fresh
from clearhead.cli import exit_status


def process(program: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return fresh.run(program, environment=environment)


RUN = (
    "import sys; from clearhead import cli; from clearhead.cli import given; "
    "sys.argv = ['clearhead', *{arguments!r}]; {before}; cli.main()"
)


@pytest.mark.slow
def test_a_fault_is_a_sentence_and_a_status_of_its_own() -> None:
    program = RUN.format(arguments=["see", "a"], before="given.read_words = lambda *_: 1 / 0")
    done = process(program)
    assert done.returncode == exit_status.FAULT
    assert done.stderr.count("\n") == 1
    assert "unexpected ZeroDivisionError" in done.stderr
    assert "Traceback" in process(program, CLEARHEAD_DEBUG="1").stderr


@pytest.mark.slow
def test_a_warning_shows_no_path() -> None:
    before = "import warnings; given.read_words = lambda *_: warnings.warn('mind the gap') or sys.exit()"
    done = process(RUN.format(arguments=["see", "a"], before=before))
    assert done.stderr == "clearhead: mind the gap\n"


@pytest.mark.slow
def test_the_streams_of_a_real_process(tmp_path: Path) -> None:
    python = f"{sys.executable} -m clearhead"

    def shell(line: str) -> tuple[int, str, str]:
        done = subprocess.run(["/bin/bash", "-c", line], capture_output=True, cwd=tmp_path)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    assert shell(f"{python} new schema | head -1; exit ${{PIPESTATUS[0]}}")[0] in (0, exit_status.CLOSED)
    status, out, errors = shell(f"{python} new schema | true; exit ${{PIPESTATUS[0]}}")
    assert (status, out, errors) == (exit_status.CLOSED, "", "")
    status, _, errors = shell(f"{python} new schema >&-")
    assert (status, errors) == (exit_status.FAILED, "clearhead: the output cannot be written: Bad file descriptor.\n")
    assert shell(f"{python} see <&- 2>&-")[0] == exit_status.FAILED
    assert shell(f"{python} --version > /dev/full")[0] == exit_status.FAILED
    status, out, errors = shell(f"PYTHONIOENCODING=ascii {python} studio user add 李雷 --data data")
    assert (status, errors) == (0, "")
    assert "Send \\u674e\\u96f7 this link" in out


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("see",), ("survey", "run"), ("studio", "user", "add")])
def test_help_that_is_piped_has_no_boxes_and_no_blanks_at_the_ends_of_lines(words: tuple[str, ...]) -> None:
    done = process(RUN.format(arguments=[*words, "--help"], before="pass"))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: clearhead" in done.stdout
    assert [line for line in done.stdout.splitlines() if line != line.rstrip() or "│" in line] == []
