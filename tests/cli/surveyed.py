"""A survey for the commands' tests: its folder without results, and nothing that takes long."""

import json
from pathlib import Path

import pytest

from clearhead.survey.settings import FORMAT

COUNTS = {"texts": 1, "tokens": 7, "positions": 7, "batches": 1, "cut": 0, "empty": 0, "ablated": 0}


def make_surveyed(folder: Path) -> None:
    """Write the manifest of a survey that is done and asked nothing."""
    folder.mkdir()
    model = {"name": "a model", "layers": [], "heads": []}
    identity = {"model": model, "data": {"kind": "plain text"}, "settings": {"asks": []}, "versions": {}}
    done = {"given": None, "counts": COUNTS, "missed": []}
    (folder / "survey.json").write_text(json.dumps({"format": FORMAT, "identity": identity, "result": done}))


def without_work(patch: pytest.MonkeyPatch) -> None:
    """Compute nothing and read no results, so that no library of the extra is needed."""
    from clearhead import survey

    patch.setattr(survey, "check_installed", lambda *_: None)
    patch.setattr(survey, "survey", lambda *_, **__: survey.Survey(Path("new"), 1, 1, COUNTS, []))
    patch.setattr("clearhead.survey.report.listing.read_results", lambda _folder: ([], {}))
