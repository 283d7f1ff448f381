"""A data folder in which others may write."""

import os
from pathlib import Path

import pytest

from clearhead.errors import StoreError
from clearhead.studio.learner.database import KEPT, Database


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("whose", ["another user's", "a link"])
def test_what_another_user_made_in_a_folder_of_all_is_not_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, whose: str
) -> None:
    """As /tmp is: who made the secret there would know it, and could sign in as anybody."""
    data = tmp_path / "data"
    data.mkdir()
    if whose == "a link":
        (data / name).symlink_to(tmp_path / "elsewhere")
    else:
        (data / name).write_text("x" * 43)
        monkeypatch.setattr(os, "geteuid", lambda: 4242)
    data.chmod(0o1777)
    with pytest.raises(StoreError, match="made by another user"):
        Database(data)
    assert [path.name for path in data.iterdir()] == [name]
