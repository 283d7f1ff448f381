"""Compute parts in threads of this process, which share the weights of the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from queue import SimpleQueue

import torch

from clearhead.capture import Loaded
from clearhead.survey.corpus.parts import Part
from clearhead.survey.measuring.worker import StoppedError, Worker, own_copy
from clearhead.survey.part_files import contents
from clearhead.survey.running.job import Files, Job


def run(job: Job, parts: list[Part], workers: int, loaded: Loaded) -> Iterator[Files]:
    """Yield the files of each part as it is done.

    Args:
        job: the survey.
        parts: the parts to compute.
        workers: number of threads, each with `settings.threads` torch threads.
        loaded: the model; nothing else may run it at the same time.
    """
    stop = threading.Event()

    def check() -> None:
        if stop.is_set():
            raise StoppedError

    free: SimpleQueue[Worker] = SimpleQueue()
    for number in range(workers):
        own = loaded if number == 0 else own_copy(loaded)
        free.put(Worker(own, job.settings, job.layout, job.total, check))

    def compute(part: Part) -> Files:
        worker = free.get()
        try:
            return contents(worker.measure(part, job.read(part)), job.layout, job.digest)
        finally:
            free.put(worker)

    with _torch_threads(job.settings.threads), ThreadPoolExecutor(workers, "survey") as pool:
        waiting = iter(parts)
        running = {pool.submit(compute, part) for part in islice(waiting, workers)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                # Submit the next parts first: the files of these are written meanwhile.
                running |= {pool.submit(compute, part) for part in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        finally:  # after Ctrl-C or an error, the other threads end after their current batch
            stop.set()


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Set the number of torch threads per thread inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
