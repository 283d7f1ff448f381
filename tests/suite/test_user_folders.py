"""Tests write into no folder of the user's."""

import errno
import os
from pathlib import Path

import platformdirs
import pytest
import torch

import clearhead
from clearhead import files
from clearhead.errors import OptionError
from clearhead.kernels import plan
from clearhead.kernels.measured import figures
from clearhead.local_models import names


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


def test_a_user_without_a_home_has_no_file_to_read_and_an_error_where_one_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "LOCALAPPDATA", "APPDATA", figures.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    assert not files.user_folder("cache").exists()
    assert names.named_models() == {}
    plan.forget()
    try:
        query = torch.randn(1, 2, 5, 7)
        assert clearhead.attention(query, query, query).shape == query.shape
        assert figures.load().reason == "this machine was not measured: run `clearhead tune`"
        monkeypatch.setattr(Path, "mkdir", refuse)  # the superuser may make any folder
        with pytest.raises(OptionError, match=r"cannot be written: Permission denied. Set XDG_CACHE_HOME"):
            figures.save({})
    finally:
        monkeypatch.undo()
        plan.forget()


def refuse(*_: object, **__: object) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
