"""Run one function on several processes of this machine, connected by gloo."""

import multiprocessing
import os
import tempfile
import traceback
from pathlib import Path
from queue import Empty

import pytest
import torch
import torch.distributed as dist

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["torch", "clearhead.distributed", "clearhead.multihead"])
TIMEOUT = 240  # seconds until processes that hang are killed; gloo itself waits for 30 minutes


def world(size, function, *arguments, dies=()):
    """Call function(rank, size, *arguments) on each rank; return the results in order.

    Args:
        dies: ranks that end without a result; their result is None.
    Raises:
        AssertionError: a rank failed; the message has the first traceback.
    """
    with tempfile.TemporaryDirectory() as folder:
        answers = _CONTEXT.Queue()
        processes = [
            _CONTEXT.Process(target=_run, args=(answers, folder, rank, size, function, arguments), daemon=True)
            for rank in range(size)
        ]
        for process in processes:
            process.start()
        try:
            return _collect(answers, processes, size, dies)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _collect(answers, processes, size, dies):
    results, waiting = [None] * size, set(range(size)) - set(dies)
    while waiting:
        try:
            rank, failed, result = answers.get(timeout=TIMEOUT)
        except Empty:
            raise AssertionError(f"ranks {sorted(waiting)} of {size} gave no answer in {TIMEOUT} s") from None
        assert not failed, f"rank {rank} of {size}:\n{result}"
        results[rank] = result
        waiting.discard(rank)
    return results


def _run(answers, folder, rank, size, function, arguments):
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{Path(folder) / 'store'}", rank=rank, world_size=size)
        result = function(rank, size, *arguments)
    except (Exception, pytest.fail.Exception):  # noqa: BLE001 (the parent raises it)
        answers.put((rank, True, traceback.format_exc()))
    else:
        answers.put((rank, False, result))
    answers.close()
    answers.join_thread()
    os._exit(0)  # skip gloo's shutdown, which waits for ranks that have ended
