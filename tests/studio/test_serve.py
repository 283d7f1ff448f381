"""The command as a person runs it: the address, a taken port, Ctrl-C, a second start."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clearhead.errors import OptionError
from clearhead.studio import serve

# The command's own path, over the sample course: what is proved, and how fast, is the course's business.
START = """
import sys
from pathlib import Path
from studio.sample import shelf
from clearhead.studio import serve
from clearhead.studio.settings import Settings
serve.unproved, serve.prove = lambda paths: shelf(), lambda shelf, *rest: shelf
serve.serve(Settings(data=Path(sys.argv[1]), port=int(sys.argv[2])), browser=False)
assert "torch" not in sys.modules, "the studio must not load torch before somebody opens the Lens"
"""


@contextmanager
def started(data: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """The running studio, its address and what it printed before."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    running = subprocess.Popen(
        [sys.executable, "-u", "-c", START, str(data), str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert running.stdout is not None
    said = ""
    for line in running.stdout:
        said += line
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    else:
        pytest.fail(f"the studio did not start: {said}{running.communicate()[1]}")
    try:
        yield running, found[0], said
    finally:
        if running.poll() is None:
            running.kill()
        running.communicate()


def test_it_serves_and_stops_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    with started(tmp_path) as (running, address, _):
        with urllib.request.urlopen(address, timeout=20) as page:
            assert page.status == 200
        running.send_signal(signal.SIGINT)
        out, errors = running.communicate(timeout=20)
        assert running.returncode == 0, errors
        assert "Stopped." in out
        assert errors == ""


def test_a_taken_port_gets_the_next_free_one_said_in_a_line(tmp_path: Path) -> None:
    with serve.take_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with started(tmp_path, port) as (_, address, said):
            assert int(address.rsplit(":", 1)[1]) > port
            assert f"Port {port} is taken" in said


def test_no_free_port_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 65535))
        taken.listen()
        with pytest.raises(OptionError, match="no port from 65535 on is free"):
            serve.take_port("127.0.0.1", 65535)
