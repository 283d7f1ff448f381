"""What the runners share: a job's texts are read again after an error, and errors of actors keep class and message."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearhead.errors import OptionError
from clearhead.survey import Settings, open_corpus
from clearhead.survey.corpus.parts import Corpus
from clearhead.survey.measuring import layout
from clearhead.survey.running import job
from clearhead.survey.running.on_ray import PartActor, _check_listening
from survey.made import induction, write_lines


@pytest.fixture
def made(tmp_path: Path) -> job.Job:
    """A job over the lines of `texts.txt`."""
    corpus, loaded = open_corpus(write_lines(tmp_path)), induction()
    settings = Settings(asks=("sinks",), part_texts=7)
    return job.Job("induction", False, layout.digest(loaded), corpus, settings, layout.Layout.of(loaded), "0")


def test_a_drive_that_is_away_for_a_moment_is_tried_again(made: job.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    read, failures, waits = Corpus.read, [], []
    most = 2

    def shaky(self: Corpus, part: Any) -> list[str | None]:
        if len(failures) < most:
            failures.append(part)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(self, part)

    (first, *_) = made.corpus.parts(7)
    texts = made.corpus.read(first)
    monkeypatch.setattr(job.time, "sleep", waits.append)
    monkeypatch.setattr(Corpus, "read", shaky)
    assert made.read(first) == texts
    assert (failures, waits) == ([first] * 2, [0.2, 0.4])
    failures.clear()
    most = 99
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        made.read(first)
    assert len(failures) == 1 + job.RETRIES


def test_another_error_is_raised_at_once(made: job.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = []

    def broken(self: Corpus, part: Any) -> list[str | None]:
        reads.append(part)
        raise ValueError("not a drive's")

    monkeypatch.setattr(Corpus, "read", broken)
    with pytest.raises(ValueError, match="not a drive's"):
        made.read(made.corpus.parts(7)[0])
    assert len(reads) == 1


def test_an_error_of_an_actor_is_returned(made: job.Job, tmp_path: Path) -> None:
    """The exception that Ray raises for an error of another process has lost its class and message."""
    pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")
    batch = {name: np.array([value]) for name, value in (("number", 0), ("first", 0), ("count", 7))}
    good = PartActor(made)(batch)
    assert good["error"] == [["", ""]]
    assert good["names"][0][-1] == "parts/000000.parquet"
    kind, sentence = PartActor(replace(made, model_digest="0"))(batch)["error"][0]
    assert (kind, sentence.startswith("induction is another model on this machine")) == ("ModelError", True)
    (tmp_path / "texts.txt").write_text("one line\n")
    kind, sentence = PartActor(made)(batch)["error"][0]
    assert (kind, "has changed while it was read" in sentence) == ("ModelError", True)


def test_a_cluster_where_nothing_listens_is_named_at_once() -> None:
    for address in ("127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999"):
        with pytest.raises(
            OptionError, match=r"Ray cannot be reached or started .* or survey in this process: --no-ray"
        ):
            _check_listening(address)
    _check_listening("auto")
