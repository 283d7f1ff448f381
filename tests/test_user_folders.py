"""Tests write into no folder of the user's."""

import os
from pathlib import Path

import platformdirs
import pytest

from clearhead import files


@pytest.mark.parametrize("name", ["DATA", "CACHE", "CONFIG", "STATE"])
def test_the_run_has_folders_of_its_own(name: str) -> None:
    folder = Path(os.environ[f"XDG_{name}_HOME"])
    assert "clearhead-tests-" in str(folder)
    assert Path.home() not in folder.parents
    assert Path(getattr(platformdirs, f"user_{name.lower()}_dir")("clearhead")).parent == folder


def test_the_studio_keeps_its_data_there() -> None:
    from clearhead.studio.web.settings import Settings

    assert Path(os.environ["XDG_DATA_HOME"]) in Settings().data.parents


@pytest.mark.parametrize(
    ("system", "cache", "config"),
    [
        ("linux", ".cache", ".config"),
        ("darwin", "Library/Caches", "Library/Application Support"),
        ("win32", "AppData/Local", "AppData/Roaming"),
    ],
)
def test_the_librarys_folders_are_where_each_system_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, cache: str, config: str
) -> None:
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    monkeypatch.setattr("clearhead.files.sys.platform", system)
    assert files.user_folder("cache") == tmp_path / cache / "clearhead"
    assert files.user_folder("config") == tmp_path / config / "clearhead"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert files.user_folder("cache") == tmp_path / "c" / "clearhead"
