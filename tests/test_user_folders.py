"""Tests write into no folder of the user's."""

import os
from pathlib import Path

import platformdirs
import pytest


@pytest.mark.parametrize("name", ["DATA", "CACHE", "CONFIG", "STATE"])
def test_the_run_has_folders_of_its_own(name: str) -> None:
    folder = Path(os.environ[f"XDG_{name}_HOME"])
    assert "clearhead-tests-" in str(folder)
    assert Path.home() not in folder.parents
    assert Path(getattr(platformdirs, f"user_{name.lower()}_dir")("clearhead")).parent == folder


def test_the_studio_keeps_its_data_there() -> None:
    from clearhead.studio.web.settings import Settings

    assert Path(os.environ["XDG_DATA_HOME"]) in Settings().data.parents
