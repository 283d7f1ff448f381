"""The results of a survey: one row per head and statistic, in Parquet partitioned by layer, and the example texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from clearhead.survey.asks import statistics_of
from clearhead.survey.folder import SurveyFolder
from clearhead.survey.intervals import of_mean, of_share
from clearhead.survey.measuring.moments import Moments
from clearhead.survey.parquet import read_table, table_bytes, write_whole
from clearhead.survey.part_files import read_part
from clearhead.survey.running.job import Job

HEADS, EXAMPLES = "heads", "examples.parquet"
Tell = Callable[[int, int], None]


def merge(folder: SurveyFolder, job: Job, parts: int, tell: Tell) -> tuple[dict[str, Moments], dict[str, Any]]:
    """Return the moments of all parts, merged in order, and the summed counts."""
    moments: dict[str, Moments] = {}
    counts: dict[str, int] = {}
    missed: dict[tuple[str, str], int] = dict.fromkeys(job.layout.missed, job.total)
    for number in range(parts):
        more, notes = read_part(folder.part_path(number))
        moments = {name: moments[name].merged(more[name]) if name in moments else more[name] for name in more}
        for name, count in json.loads(notes["counts"]).items():
            counts[name] = counts.get(name, 0) + count
        for name, reason, texts in json.loads(notes["missed"]):
            missed[name, reason] = missed.get((name, reason), 0) + texts
        tell(number + 1, parts)
    listed = [{"layer": name, "reason": reason, "texts": texts} for (name, reason), texts in missed.items()]
    return moments, {"counts": counts, "missed": listed}


def write_results(folder: SurveyFolder, job: Job, moments: dict[str, Moments]) -> None:
    """Write `heads/layer=N/heads.parquet` for each layer, and the texts of the examples."""
    drafts = folder.path / ".heads.draft"
    shutil.rmtree(drafts, ignore_errors=True)
    for layer in range(len(job.layout.layers)):
        write_whole(drafts / f"layer={layer}" / "heads.parquet", table_bytes(_rows(job, moments, layer)))
    numbers = sorted({int(n) for each in moments.values() for n in each.example_texts.ravel() if n >= 0})
    texts = job.corpus.at(numbers, job.settings.part_texts)
    columns = {"text": np.array(numbers, dtype=np.int64), "content": _strings([texts[n] for n in numbers])}
    write_whole(folder.path / EXAMPLES, table_bytes(columns))
    shutil.rmtree(folder.path / HEADS, ignore_errors=True)
    drafts.replace(folder.path / HEADS)


def _strings(values: list[str]) -> Any:
    import pyarrow

    return pyarrow.array(values, pyarrow.string())


def _rows(job: Job, moments: dict[str, Moments], layer: int) -> dict[str, Any]:
    """Return the columns of one layer's table, with a row for each statistic and head."""
    import pyarrow

    heads, span = job.layout.heads[layer], job.layout.span(layer)
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for statistic in statistics_of(job.settings.asks):
        part = moments[statistic.name].rows(np.arange(span.start, span.stop))
        for head in range(heads):
            row = _row(part, head, statistic.threshold)
            row |= {"module": job.layout.layers[layer], "head": head, "statistic": statistic.name}
            for name, values in columns.items():
                values.append(row[name])
    return {name: pyarrow.array(values, _type(COLUMNS[name])) for name, values in columns.items()}


COLUMNS = {
    "module": "string", "head": "int32", "statistic": "string", "texts": "int64", "mean": "float64",
    "variance": "float64", "mean_low": "float64", "mean_high": "float64", "least": "float64", "most": "float64",
    "threshold": "float64", "share": "float64", "share_low": "float64", "share_high": "float64",
    "histogram": "list<int64>", "example_texts": "list<int64>", "example_values": "list<float64>",
}  # fmt: skip


def _type(name: str) -> Any:
    import pyarrow

    kinds = {"string": pyarrow.string(), "int32": pyarrow.int32(), "int64": pyarrow.int64()}
    kinds["float64"] = pyarrow.float64()
    inside = name.removeprefix("list<").removesuffix(">")
    return pyarrow.list_(kinds[inside]) if inside != name else kinds[name]


def _row(part: Moments, head: int, threshold: float | None) -> dict[str, Any]:
    count = int(part.count[head])
    mean = float(part.mean[head]) if count else None
    variance = float(part.squares[head]) / (count - 1) if count > 1 else None
    mean_low, mean_high = (None, None) if mean is None or variance is None else of_mean(mean, variance, count)
    above = int(part.above[head])
    share_low, share_high = of_share(above, count) if threshold is not None and count else (None, None)
    texts = [int(text) for text in part.example_texts[head] if text >= 0]
    return {
        "texts": count,
        "mean": mean,
        "variance": variance,
        "mean_low": mean_low,
        "mean_high": mean_high,
        "least": float(part.least[head]) if count else None,
        "most": float(part.most[head]) if count else None,
        "threshold": threshold,
        "share": None if threshold is None or not count else above / count,
        "share_low": share_low,
        "share_high": share_high,
        "histogram": [int(n) for n in part.histogram[head]] if part.histogram[head].any() else [],
        "example_texts": texts,
        "example_values": [float(value) for value in part.example_values[head][: len(texts)]],
    }


def read_results(folder: SurveyFolder) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the rows of all layers, each with its layer, and the example texts by number."""
    rows = []
    layers = [(int(place.name.removeprefix("layer=")), place) for place in (folder.path / HEADS).glob("layer=*")]
    for layer, place in sorted(layers):
        columns, _ = read_table(place / "heads.parquet")
        names = list(columns)
        rows += [{"layer": layer} | dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    columns, _ = read_table(folder.path / EXAMPLES)
    return rows, dict(zip(columns["text"], columns["content"], strict=True))
