"""survey(): compute the head statistics of a model over a corpus, part by part, resuming after a kill."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearhead.capture import load
from clearhead.capture.models.loading import Loaded
from clearhead.errors import OptionError
from clearhead.extras import needs
from clearhead.survey import results
from clearhead.survey.corpus.parts import Corpus, Part
from clearhead.survey.folder import SurveyFolder
from clearhead.survey.measuring.ablations import loss_name
from clearhead.survey.measuring.batches import longest
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.measuring.layout import digest as weights_digest
from clearhead.survey.running import in_process
from clearhead.survey.running.job import Files, Job
from clearhead.survey.settings import FORMAT, Settings

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Survey:
    """The result of a survey.

    Attributes:
        folder: the folder it was written to.
        computed: number of parts computed in this call. parts: number of parts in all.
        counts: texts, empty ones, cut ones, tokens, positions with padding, batches, ablated texts.
        missed: layers that were not surveyed in some texts, each {"layer", "reason", "texts"}.
    """

    folder: Path
    computed: int
    parts: int
    counts: dict[str, int]
    missed: list[dict[str, Any]]


class StoppedSurveyError(KeyboardInterrupt):
    """Ctrl-C stopped a survey: `done` of `parts` parts are written, and the same call resumes there."""

    def __init__(self, done: int, parts: int) -> None:
        super().__init__(f"{done} of {parts} parts are written; the same command resumes there")
        self.done, self.parts = done, parts


def survey(
    model: str | None,
    corpus: Corpus,
    out: str | Path,
    settings: Settings | None = None,
    *,
    trust_remote_code: bool = False,
    workers: int | None = None,
    ray: bool | None = None,
    address: str | None = None,
    progress: Tell = lambda _doing, _done, _total: None,
) -> Survey:
    """Survey the heads of a model over a corpus, and write the statistics of each head to a folder.

    Parts are computed and written one after another. After Ctrl-C, a kill or an error, the same call resumes with the
    parts that are not written yet. On one kind of CPU the files are the same bit for bit, for any number of workers,
    any order and any number of kills.

    Args:
        model: as in `capture.load`.
        corpus: from `open_corpus`.
        out: the folder; new, empty, or of the same survey.
        settings: what to ask.
        trust_remote_code: as in `capture.load`.
        workers: number of workers; None: one per `settings.threads` cores.
        ray: whether the workers are Ray actors; None: if Ray is installed.
        address: the address of a Ray cluster; None: RAY_ADDRESS, or a new cluster on this machine.
        progress: called with the current task, how much of it is done, and how much there is.

    Raises:
        OptionError: an option is invalid, or the folder holds something else.
        ModelError, CaptureError: the model cannot be surveyed.
        ExtraError: pyarrow, or Ray where it was asked for, is not installed.
        StoppedSurveyError: Ctrl-C.
    """
    check_installed(ray)
    settings = settings or Settings()
    if workers is not None and workers < 1:
        raise OptionError(f"workers is {workers}, expected 1 or more.")
    if address is not None and ray is False:
        raise OptionError(f"--address is {address}, and --no-ray surveys in this process. Leave one of them out.")
    use_ray = ray if ray is not None else address is not None or has_ray()
    folder = SurveyFolder.at(out)
    folder.check_apart(corpus.path)
    progress("loading the model", 0, 0)
    loaded = load(model, trust_remote_code=trust_remote_code)
    layout = Layout.of(loaded)
    model_digest = weights_digest(loaded)
    survey_identity = identity(loaded, model_digest, layout, corpus, settings)
    parts = corpus.parts(settings.part_texts, settings.limit)
    with folder.locked():
        digest = folder.begin(survey_identity)
        folder.tidy()
        job = Job(model, trust_remote_code, model_digest, corpus, settings, layout, digest)
        remaining = folder.remaining(parts, digest)
        workers = workers or max((os.cpu_count() or 1) // settings.threads, 1)
        runner = (
            _on_ray(job, remaining, workers, address) if use_ray else in_process.run(job, remaining, workers, loaded)
        )
        if remaining:
            _compute(folder, job, parts, remaining, runner, progress)
        moments, result = results.merge(folder, job, len(parts), lambda done, total: progress("merging", done, total))
        results.write_results(folder, job, moments)
        folder.write(survey_identity, result | {"given": model})
    return Survey(folder.path, len(remaining), len(parts), result["counts"], result["missed"])


def _compute(
    folder: SurveyFolder, job: Job, parts: list[Part], remaining: list[Part], runner: Iterator[Files], progress: Tell
) -> None:
    """Compute the remaining parts and write each as it finishes."""
    total = sum(part.count for part in parts)
    done = total - sum(part.count for part in remaining)
    sizes = {f"parts/{folder.part_path(part.number).name}": part.count for part in remaining}
    task = f"surveying {job.total:,} texts"
    progress(task, done, total)
    try:
        for files in runner:
            folder.add(files)
            done += sizes[list(files)[-1]]
            progress(task, done, total)
    except KeyboardInterrupt as error:
        written = len(parts) - len(folder.remaining(parts, job.digest))
        raise StoppedSurveyError(written, len(parts)) from error
    finally:
        close = getattr(runner, "close", None)
        if close is not None:
            close()


def _on_ray(job: Job, parts: list[Part], workers: int, address: str | None) -> Iterator[Files]:
    from clearhead.survey.running import on_ray

    return on_ray.run(job, parts, workers, address)


def check_installed(on_ray: bool | None = None) -> None:
    """Check that the libraries of a survey are installed, before reading anything.

    Raises:
        ExtraError: pyarrow is not, or Ray where it was asked for.
    """
    with needs("survey", "a survey"):
        import pyarrow.parquet  # noqa: F401
    if on_ray:
        with needs("survey", "a survey on Ray"):
            import ray.data  # noqa: F401


def has_ray() -> bool:
    """Return whether Ray Data is installed."""
    from importlib.util import find_spec

    return find_spec("ray") is not None


def identity(loaded: Loaded, model_digest: str, layout: Layout, corpus: Corpus, settings: Settings) -> dict[str, Any]:
    """Return everything that decides a survey's numbers, and display names."""
    import torch
    import transformers

    return {
        "model": {
            "name": loaded.name,
            "digest": model_digest,
            "layers": list(layout.layers),
            "heads": list(layout.heads),
            "max_length": longest(loaded, settings.max_length),
            "loss": loss_name(loaded),
        },
        "data": {
            "kind": corpus.kind,
            "texts": corpus.texts,
            "digest": [file.digest for file in corpus.files] if len(corpus.files) < 2 else _joined(corpus),
        },
        "settings": settings.as_data(),
        "versions": {
            "survey": FORMAT,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def _joined(corpus: Corpus) -> list[str]:
    import hashlib

    return [hashlib.blake2b("".join(file.digest for file in corpus.files).encode(), digest_size=16).hexdigest()]
