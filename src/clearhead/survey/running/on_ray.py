"""Compute parts in Ray Data actors, each with its own model, on this machine or on a cluster.

A part is one row of a dataset that streams through a pool of actors. An actor reads the part's texts on its machine, so
the corpus and the model must have the same path on every machine. It returns the files of the part, which are written
here. Ray Data replaces an actor that died and computes its part again.
"""

from __future__ import annotations

import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clearhead import errors
from clearhead.errors import ClearheadError, ModelError, OptionError
from clearhead.extras import needs
from clearhead.survey.corpus.parts import Part
from clearhead.survey.running.job import Files, Job

if TYPE_CHECKING:
    from clearhead.survey.measuring.worker import Worker

ADDRESS = "RAY_ADDRESS"
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}


class PartActor:
    """Surveys parts with a model that it loads once.

    Errors of Clearhead are returned, not raised: Ray would replace the exception by its own in the other process.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._error: ClearheadError | None = None
        try:
            self._worker = _worker(job)
        except ClearheadError as error:
            self._error = error

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = zip(*(batch[name].tolist() for name in ("number", "first", "count")), strict=True)
        made = [self._compute(Part(*row)) for row in rows]
        return {name: [row[name] for row in made] for name in ("names", "files", "error")}

    def _compute(self, part: Part) -> dict[str, list[Any]]:
        """Return the files of a part by name, or the error as its class and message."""
        from clearhead.survey.part_files import contents

        error = self._error
        if error is None:
            try:
                files = contents(self._worker.measure(part, self._job.read(part)), self._job.layout, self._job.digest)
                return {"names": list(files), "files": list(files.values()), "error": ["", ""]}
            except ClearheadError as raised:
                error = raised
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return {"names": [""], "files": [b""], "error": [kind, str(error)]}


def _worker(job: Job) -> Worker:
    """Return the worker of an actor, with the model that the survey began with.

    Raises:
        ModelError: on this machine the name refers to another model.
    """
    import torch

    from clearhead.capture import load
    from clearhead.survey.measuring.layout import Layout, digest
    from clearhead.survey.measuring.worker import Worker

    torch.set_num_threads(job.settings.threads)
    loaded = load(job.model, trust_remote_code=job.trust)
    if digest(loaded) != job.model_digest or Layout.of(loaded) != job.layout:
        raise ModelError(
            f"{job.model or loaded.name} is another model on this machine of the cluster than where the survey "
            "began. Copy the same folder to each machine."
        )
    return Worker(loaded, job.settings, job.layout, job.total)


def run(job: Job, parts: list[Part], workers: int, address: str | None) -> Iterator[Files]:
    """Yield the files of each part as it is done.

    Args:
        job: the survey.
        parts: the parts to compute.
        workers: number of actors, each with `settings.threads` CPUs.
        address: the address of a Ray cluster; None: the connected cluster, or RAY_ADDRESS, or a new one here.

    Raises:
        ExtraError: Ray Data is not installed.
        OptionError: the cluster cannot be reached, or has too few CPUs for one actor.
    """
    if not parts:
        return
    with needs("survey", "a survey on Ray"):
        import ray.data
    with _connected(workers * job.settings.threads, address):
        threads = job.settings.threads
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < threads:
            raise OptionError(f"Ray has {cpus} CPUs, and one worker takes {threads}. Give fewer threads, or --no-ray.")
        size = max(min(workers, cpus // threads, len(parts)), 1)
        rows = [{"number": part.number, "first": part.first, "count": part.count} for part in parts]
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            PartActor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size, max_tasks_in_flight_per_actor=2),
            num_cpus=threads,
        )
        for row in dataset.iter_rows():
            kind, sentence = row["error"]
            if kind:
                raise getattr(errors, kind)(sentence)
            yield dict(zip(row["names"], row["files"], strict=True))


@contextmanager
def _connected(cpus: int, address: str | None) -> Iterator[None]:
    """Connect to a cluster, or start Ray on this machine; on leaving, disconnect or stop it again."""
    import ray

    _quiet()
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get(ADDRESS)
    if address:
        _check_listening(address)
    options: dict[str, Any] = {"address": address} if address else {"num_cpus": cpus, "include_dashboard": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # a node that starts too slowly raises a bare Exception
        raise _unreachable(str(error).partition("\n")[0]) from error
    try:
        yield
    finally:
        ray.shutdown()


def _check_listening(address: str) -> None:
    """Check that something listens at a cluster's address, because Ray itself tries for minutes.

    Raises:
        OptionError: nothing listens there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto" and "local" are for Ray to resolve
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(str(error)) from error


def _unreachable(reason: str) -> OptionError:
    return OptionError(
        f"Ray cannot be reached or started ({reason}). Check --address, or survey in this process: --no-ray."
    )


def _quiet() -> None:
    """Silence Ray's own messages, because the survey shows its progress on the terminal."""
    from ray.data import DataContext

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
