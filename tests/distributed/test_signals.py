"""Ctrl-C and SIGTERM to one rank or to all, computing or waiting: every process ends, and says why in a sentence."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("endless.py")
SIZE = 3
LIMIT = 180  # seconds for a start or an end on a busy machine; gloo alone would wait 30 minutes


def commands(launcher, mode):
    if launcher == "torchrun":
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(SIZE)]
        return [*run, str(PROGRAM), mode]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [sys.executable, str(PROGRAM), mode, str(port)]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[-1].split()[0] != "Z"
    except OSError:
        return False


def until(condition):
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"nothing happened in {LIMIT} s"
        time.sleep(0.05)


@pytest.mark.stress
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc to see which processes live")
@pytest.mark.parametrize(("sent", "to"), [(signal.SIGINT, 0), (signal.SIGINT, "all"), (signal.SIGTERM, 1)])
@pytest.mark.parametrize("mode", ["computes", "waits"])
@pytest.mark.parametrize("launcher", ["torchrun", "spawn"])
def test_a_signal_ends_every_rank(tmp_path, launcher, mode, sent, to):
    environment, log, ranks = {**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "log", {}
    with log.open("w") as output:
        process = subprocess.Popen(
            commands(launcher, mode), env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        until(lambda: log.read_text().count("READY") == SIZE or process.poll() is not None)
        ranks = {int(rank): int(pid) for rank, pid in re.findall(r"READY (\d) (\d+)", log.read_text())}
        assert len(ranks) == SIZE, log.read_text()
        time.sleep(0.3)  # into the loop; any moment will do
        os.killpg(process.pid, sent) if to == "all" else os.kill(ranks[to], sent)
        until(lambda: process.poll() is not None and not any(map(alive, ranks.values())))
    finally:
        for pid in (*ranks.values(), process.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    said = log.read_text()
    if to == 0:
        assert re.search(r"RanksError: another rank did not answer while this one was .*: rank 0 left after Keyb", said)
    assert said.count("During handling of the above exception") == 0, said
    assert said.count("Traceback (most recent call last)") <= SIZE + 2, said  # one a rank, and the launcher's
