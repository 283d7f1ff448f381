"""listing(): a finished survey as data, which the page shows and `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearhead.errors import ModelError
from clearhead.survey.asks import BY_NAME, statistics_of
from clearhead.survey.folder import SurveyFolder
from clearhead.survey.results import read_results

FORMAT = "clearhead.survey/1"


def listing(path: str | Path) -> dict[str, Any]:
    """Return the results of a survey as data.

    Returns:
        "model", "data", "settings" of the survey; "layers" with their "heads"; "counts" of texts and tokens; "missed"
        layers; "statistics" with their meaning; "rows", one per head and statistic; "examples", number -> text.

    Raises:
        ModelError: the folder holds no survey, an unfinished one, or one whose results were removed or damaged.
    """
    folder = SurveyFolder.at(path)
    manifest = folder.manifest
    identity, result = manifest["identity"], manifest["result"]
    if not result:
        raise ModelError(
            f"the survey in {folder.path} is not done. Run the command that started it again: "
            "it resumes where it stopped."
        )
    asked = statistics_of(identity["settings"]["asks"])
    try:
        rows, examples = read_results(folder)
    except (OSError, ValueError) as error:
        raise _incomplete(folder, str(error).partition("\n")[0]) from error
    if len(rows) != len(asked) * sum(identity["model"]["heads"]):
        raise _incomplete(folder, "rows are missing")
    return {
        "format": FORMAT,
        "model": identity["model"],
        "data": identity["data"],
        "settings": identity["settings"],
        "versions": identity["versions"],
        "given": result["given"],
        "counts": result["counts"],
        "missed": result["missed"],
        "statistics": [
            {
                "name": statistic.name,
                "about": statistic.about,
                "does": statistic.does,
                "threshold": statistic.threshold,
                "bounded": statistic.bounded,
            }
            for statistic in asked
        ],
        "rows": [row | {"does": _does(row)} for row in rows],
        "examples": {str(number): text for number, text in examples.items()},
    }


def _incomplete(folder: SurveyFolder, reason: str) -> ModelError:
    return ModelError(
        f"the results in {folder.path} are not complete ({reason}). Run the command that made the survey again: it "
        "writes them again from the parts, without computing those."
    )


def _does(row: dict[str, Any]) -> bool:
    """Whether a head has, on average, the role that its statistic names: the mean reaches the threshold."""
    threshold = BY_NAME[row["statistic"]].threshold
    return threshold is not None and row["mean"] is not None and row["mean"] >= threshold
