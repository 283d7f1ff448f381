"""A whole survey gives the same files bit for bit with any workers and after any kill, and computes nothing twice."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import capture
from clearhead.errors import ModelError, OptionError
from clearhead.survey import Settings, StoppedSurveyError, open_corpus, survey, surveying
from clearhead.survey.folder import SurveyFolder
from clearhead.survey.intervals import student
from clearhead.survey.measuring.worker import Worker
from clearhead.survey.report.listing import listing
from clearhead.survey.report.page import page
from survey.made import CLOSE, TEXTS, contents, induction, write_lines

pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")

ALL = Settings(asks=("scores", "entropy", "received", "sinks", "ablation"), part_texts=7, sample=4, keep_texts=True)


def run(place: Path, name: str, settings: Settings = ALL, **options: Any) -> Path:
    options = {"workers": 1, "ray": False} | options
    survey("induction", open_corpus(place / "texts.txt"), place / name, settings, **options)
    return place / name


@pytest.fixture(scope="module")
def surveyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `texts.txt`, and a survey of it in `whole`."""
    place = tmp_path_factory.mktemp("survey")
    write_lines(place, copies=3)
    run(place, "whole")
    return place


def test_more_workers_write_the_same_bits(surveyed: Path) -> None:
    assert contents(run(surveyed, "three", workers=3)) == contents(surveyed / "whole")


def test_the_numbers_are_those_of_each_text_alone(surveyed: Path) -> None:
    rows = {(row["layer"], row["head"], row["statistic"]): row for row in listing(surveyed / "whole")["rows"]}
    loaded = induction()
    texts = (surveyed / "texts.txt").read_text(encoding="utf-8").splitlines()
    alone = [capture.scores(capture.read(loaded, text)) for text in texts]
    for name in ("previous_token", "first_token", "induction", "breadth", "positional"):
        for number, score in enumerate(alone[0]):
            values = np.array([getattr(scores[number], name) for scores in alone])
            values = values[~np.isnan(values)]
            row = rows[0 if number < 4 else 1, score.head, name]
            assert (row["module"], row["texts"]) == (score.layer, len(values))
            assert row["mean"] == pytest.approx(values.mean(), abs=CLOSE)
            assert row["variance"] == pytest.approx(values.var(ddof=1), abs=CLOSE)
            half = student(len(values) - 1) * (values.var(ddof=1) / len(values)) ** 0.5
            assert (row["mean_low"], row["mean_high"]) == pytest.approx(
                (values.mean() - half, values.mean() + half), abs=4 * CLOSE
            )
            if row["threshold"] is not None:
                assert row["share"] == pytest.approx((values >= row["threshold"]).mean(), abs=1 / len(values))
            for text, value in zip(row["example_texts"], row["example_values"], strict=True):
                assert value == pytest.approx(getattr(alone[text][number], name), abs=CLOSE)


def test_ablation_is_what_the_loss_gains(surveyed: Path) -> None:
    data = listing(surveyed / "whole")
    rows = [row for row in data["rows"] if row["statistic"] == "ablation"]
    assert {row["texts"] for row in rows} == {data["counts"]["ablated"]} == {4}
    loaded = induction()
    texts = (surveyed / "texts.txt").read_text(encoding="utf-8").splitlines()
    gains = []
    for text in (text for number, text in enumerate(texts) if ALL.is_sampled(number, len(texts))):
        given = loaded.tokenizer(text, return_tensors="pt")

        def loss(output: Any, ids: torch.Tensor = given["input_ids"]) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:])

        gains.append(
            [effect.effect for effect in capture.ablate(loaded.writer, {"input_ids": given["input_ids"]}, loss)]
        )
    assert [row["mean"] for row in rows] == pytest.approx(np.mean(gains, 0), abs=8 * CLOSE)


def test_ablation_alone_runs_the_sampled_texts_only(surveyed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(Worker, "_measure_batch", lambda *_args, **_options: ran.append(1))
    data = listing(run(surveyed, "ablation", replace(ALL, asks=("ablation",))))
    rows = [row for row in listing(surveyed / "whole")["rows"] if row["statistic"] == "ablation"]
    assert (ran, data["rows"], data["counts"]["ablated"], data["counts"]["texts"]) == ([], rows, 4, 3 * len(TEXTS))
    assert "texts of similar lengths" not in page(data)


def test_the_parquet_is_partitioned_by_layer(surveyed: Path) -> None:
    from pyarrow import dataset

    heads = dataset.dataset(surveyed / "whole" / "heads", partitioning="hive").to_table().to_pandas()
    assert set(heads["layer"]) == {0, 1}
    texts = dataset.dataset(surveyed / "whole" / "texts", partitioning="hive").to_table().to_pandas()
    assert len(texts) == 3 * len(TEXTS) * len(heads[["layer", "head"]].drop_duplicates())
    mean = texts.groupby(["layer", "head"])["previous_token"].mean().to_numpy()
    rows = heads[heads["statistic"] == "previous_token"].sort_values(["layer", "head"])
    np.testing.assert_allclose(rows["mean"], mean, rtol=0, atol=CLOSE)


def test_what_is_written_is_not_computed_again(surveyed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run(surveyed, "damaged")
    (folder / "parts" / "000002.parquet").write_bytes(b"PAR1 half of a file")
    (folder / "parts" / "000000.parquet").unlink()
    (folder / "parts" / ".000001.parquet.draft").write_bytes(b"what a killed process left")
    measured = []
    measure = Worker.measure
    monkeypatch.setattr(
        Worker, "measure", lambda self, part, texts: measured.append(part.number) or measure(self, part, texts)
    )
    run(surveyed, "damaged")
    assert measured == [0, 2]
    assert contents(folder) == contents(surveyed / "whole")
    run(surveyed, "damaged")
    assert measured == [0, 2]


def test_ctrl_c_keeps_what_is_done(surveyed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = SurveyFolder.add

    def interrupted(self: SurveyFolder, files: dict[str, bytes]) -> None:
        add(self, files)
        if len(list((self.path / "parts").iterdir())) == 2:
            raise KeyboardInterrupt

    before = threading.active_count(), torch.get_num_threads()
    with monkeypatch.context() as patch:
        patch.setattr(SurveyFolder, "add", interrupted)
        with pytest.raises(StoppedSurveyError, match="2 of 5 parts are written; the same command resumes there"):
            run(surveyed, "stopped", workers=2)
    assert (threading.active_count(), torch.get_num_threads()) == before
    with pytest.raises(ModelError, match=r"the survey in .* is not done. Run the command that started it again"):
        listing(surveyed / "stopped")
    assert contents(run(surveyed, "stopped")) == contents(surveyed / "whole")


KILLED = """
import os, signal, sys, time
from pathlib import Path
from clearhead import capture
from clearhead.survey import Settings, open_corpus, survey

capture.load("induction")  # what it imports is there in each child
place, whole = Path(sys.argv[1]), Path(sys.argv[1]) / "killed"
settings = Settings(asks=("scores", "entropy", "received", "sinks", "ablation"), part_texts=7, sample=4, keep_texts=True)

def computed():
    return len(list((whole / "parts").glob("0*.parquet"))) if whole.exists() else 0

for wanted in (1, 2, 4, None):
    child = os.fork()
    if child == 0:
        survey("induction", open_corpus(place / "texts.txt"), whole, settings, workers=1, ray=False)
        os._exit(0)
    while wanted is not None and computed() < wanted and os.waitpid(child, os.WNOHANG) == (0, 0):
        time.sleep(0.001)
    if wanted is not None:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    print(wanted, os.WTERMSIG(status), computed(), flush=True)
"""


@pytest.mark.stress
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are made by fork")
def test_killed_three_times_and_resumed_it_is_the_same_bit_for_bit(surveyed: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(surveyed)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["1", "2", "4", "None"]
    assert [int(line[1]) for line in lines] == [signal.SIGKILL] * 3 + [0]
    assert int(lines[2][2]) < 5 == int(lines[3][2])  # the last kill was before the end
    assert contents(surveyed / "killed") == contents(surveyed / "whole")


OTHERS = {
    "--ask was scores,entropy,received,sinks,ablation and is scores": {"asks": ("scores",)},
    "--limit was not given and is 9": {"limit": 9},
    "--batch was 2048 and is 100": {"batch_tokens": 100},
    "--threads was 1 and is 2": {"threads": 2},
}


@pytest.mark.parametrize("words", OTHERS)
def test_another_survey_is_refused_and_nothing_is_lost(words: str, surveyed: Path) -> None:
    before = contents(surveyed / "whole")
    settings = Settings(**(ALL.as_data() | {"asks": ALL.asks} | OTHERS[words]))
    with pytest.raises(OptionError, match=f"holds another survey: {words}\\. Nothing was changed"):
        run(surveyed, "whole", settings)
    assert contents(surveyed / "whole") == before


def test_other_texts_and_another_model_are_refused(surveyed: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text((surveyed / "texts.txt").read_text(encoding="utf-8").replace("cat", "dog"))
    corpus = open_corpus(tmp_path / "texts.txt")
    with pytest.raises(OptionError, match=r"another survey: other texts\. Nothing"):
        survey("induction", corpus, surveyed / "whole", ALL, ray=False)
    manifest = json.loads((surveyed / "whole" / "survey.json").read_text())
    manifest["identity"]["model"]["digest"] = "0"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "survey.json").write_text(json.dumps(manifest))
    with pytest.raises(OptionError, match=r"another survey: another model. Nothing"):
        survey("induction", open_corpus(surveyed / "texts.txt"), tmp_path / "other", ALL, ray=False)
    manifest["identity"]["model"] |= {"name": "theirs", "layers": ["h.0"], "heads": [2]}
    (tmp_path / "other" / "survey.json").write_text(json.dumps(manifest))
    with pytest.raises(OptionError, match=r"another survey: another model \(theirs, and now induction\)\. Nothing"):
        survey("induction", open_corpus(surveyed / "texts.txt"), tmp_path / "other", ALL, ray=False)


def test_a_folder_with_other_files_is_refused(surveyed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    corpus = open_corpus(surveyed / "texts.txt")
    with pytest.raises(OptionError, match=r"is not empty and is not the folder of a survey \(notes.txt is in it\)"):
        survey("induction", corpus, tmp_path, ALL, ray=False)
    with pytest.raises(OptionError, match=r"notes.txt is a file, expected a folder"):
        survey("induction", corpus, tmp_path / "notes.txt", ALL, ray=False)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="folders are locked on Unix systems alone")
def test_two_surveys_do_not_write_into_one_folder(surveyed: Path) -> None:
    with SurveyFolder(surveyed / "whole").locked(), pytest.raises(OptionError, match="another survey is writing into"):
        run(surveyed, "whole")


def test_empty_and_long_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    texts = ["", None, " ", "abc", "a longer text than twenty tokens are", "abc"]
    path.write_text("\n".join(json.dumps({"text": text}) for text in texts))
    settings = Settings(asks=("scores", "ablation"), max_length=20, part_texts=2, sample=6)
    result = survey("induction", open_corpus(path), tmp_path / "out", settings, workers=1, ray=False)
    assert {name: result.counts[name] for name in ("texts", "empty", "cut", "tokens", "ablated")} == {
        "texts": 3, "empty": 3, "cut": 1, "tokens": 4 + 20 + 4, "ablated": 3,
    }  # fmt: skip
    assert {row["texts"] for row in listing(tmp_path / "out")["rows"] if row["statistic"] == "previous_token"} == {3}


def test_an_error_in_one_part_ends_the_survey_and_keeps_the_others(
    surveyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = Worker.measure

    def fails(self: Worker, part: Any, texts: Any) -> Any:
        if part.number == 3:
            raise ModelError("the third part cannot be read. Give another.")
        return measure(self, part, texts)

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "measure", fails)
        with pytest.raises(ModelError, match="the third part"):
            run(surveyed, "failed")
    assert sorted(path.name for path in (surveyed / "failed" / "parts").iterdir()) == [
        f"00000{n}.parquet" for n in range(3)
    ]
    assert contents(run(surveyed, "failed")) == contents(surveyed / "whole")


FILES = {"survey.json": 0, "a part": 3, "a table of texts": 10, "the results": 17}


@pytest.mark.parametrize("where", FILES)
def test_a_full_disk_is_a_sentence_and_the_survey_goes_on_later(
    where: str, surveyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files that are written one after the other, the disk has room for so many."""
    fsync, written, name = os.fsync, [], f"full {where}"

    def full(descriptor: int) -> None:
        if len(written) == FILES[where]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)
        written.append(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OptionError, match=r"cannot be written: No space left on device. Make room, or give"):
            run(surveyed, name)
    kept = {path: time for path, time in times(surveyed / name).items() if not path.name.endswith(".draft")}
    assert len(kept) == FILES[where]
    assert contents(run(surveyed, name)) == contents(surveyed / "whole")
    parts = {path: time for path, time in kept.items() if path.parent.name == "parts"}
    assert parts.items() <= times(surveyed / name).items()


def times(folder: Path) -> dict[Path, int]:
    """When each file was written, in nanoseconds."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_corpus_of_empty_texts_gives_a_survey_without_rows(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in ("", None, " ")))
    result = survey("induction", open_corpus(path), tmp_path / "out", Settings(), workers=1, ray=False)
    assert (result.counts["texts"], result.counts["empty"]) == (0, 3)
    assert {row["texts"] for row in listing(tmp_path / "out")["rows"]} == {0}


def test_a_folder_without_a_model_and_no_workers_are_refused(surveyed: Path, tmp_path: Path) -> None:
    corpus = open_corpus(surveyed / "texts.txt")
    with pytest.raises(ModelError, match=r"has no config.json"):
        survey(str(surveyed), corpus, tmp_path / "out", ray=False)
    assert not (tmp_path / "out").exists()
    with pytest.raises(OptionError, match="workers is 0, expected 1 or more"):
        survey("induction", corpus, tmp_path / "out", workers=0, ray=False)


def test_the_first_batch_of_each_part_is_compared_with_the_models_own_output(
    surveyed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.capture import call

    compared = []
    monkeypatch.setattr(call, "check_rows", lambda *_: compared.append(1))
    settings = Settings(asks=("sinks",), part_texts=11, batch_tokens=60)
    survey("induction", open_corpus(surveyed / "texts.txt"), surveyed / "compared", settings, workers=1, ray=False)
    assert len(compared) == 2 * (1 + 3)  # two layers: the model's layout, and three parts of many batches
    assert listing(surveyed / "compared")["counts"]["batches"] > 9


def test_ray_is_taken_if_it_is_there(monkeypatch: pytest.MonkeyPatch, surveyed: Path) -> None:
    taken: list[str] = []

    def on_ray(*_: Any) -> Any:
        taken.append("ray")
        return iter(())

    monkeypatch.setattr(surveying, "_on_ray", on_ray)
    for installed, ray, wanted in ((True, None, ["ray"]), (True, False, []), (False, None, [])):
        monkeypatch.setattr(surveying, "has_ray", lambda installed=installed: installed)
        taken.clear()
        run(surveyed, "whole", ray=ray)
        assert taken == wanted
