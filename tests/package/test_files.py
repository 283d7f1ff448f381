"""Files that cannot be written: every function that writes one says so in words."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure

from clearhead.capture import Record
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.store import load, save
from clearhead.sizes import size
from clearhead.views import plot

QUERY = torch.randn(1, 2, 5, 3)
MATRIX = AttentionMatrix(QUERY, QUERY)
WRITERS: dict[str, Callable[[str], object]] = {
    "page.html": lambda path: Record.of({"a layer": MATRIX}).to_html(path),
    "figure.svg": lambda path: plot.save(Figure(), path),
    "matrix.safetensors": lambda path: save(MATRIX, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_be_written(name: str, tmp_path: Path) -> None:
    write = WRITERS[name]
    (tmp_path / "file").touch()
    (tmp_path / name).mkdir()
    places = [tmp_path / "nowhere" / name, tmp_path / "file" / name, tmp_path / name, "n" * 300 + name, f"a\0{name}"]
    for place in places:
        with pytest.raises(OptionError, match="cannot be written: ") as refused:
            write(str(place))
        assert "[Errno" not in str(refused.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_may_not_be_written_to(name: str, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        tmp_path.chmod(0o700)
        pytest.skip("root may write anywhere")
    with pytest.raises(OptionError, match="cannot be written"):
        WRITERS[name](str(tmp_path / name))
    tmp_path.chmod(0o700)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk() -> None:
    with pytest.raises(OptionError, match=r"No space left on device\. Make room"):
        Record.of({"a layer": MATRIX}).to_html("/dev/full")


@pytest.mark.parametrize("name", WRITERS)
def test_a_link_stays_a_link(name: str, tmp_path: Path) -> None:
    link, target = tmp_path / f"link-{name}", tmp_path / f"target-{name}"
    for _ in range(2):  # the second time the target is there
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        WRITERS[name](str(link))
        assert link.is_symlink()
        assert target.stat().st_size


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    place = tmp_path / "pipe"
    os.mkfifo(place)
    reader = os.open(place, os.O_RDONLY | os.O_NONBLOCK)
    save(MATRIX, place)
    with os.fdopen(reader, "rb") as pipe:
        (tmp_path / "copy").write_bytes(pipe.read())
    assert place.is_fifo()
    assert load(tmp_path / "copy")[""].shape == MATRIX.shape


def test_a_matrix_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff" * 99)
    for place in (tmp_path / "nowhere", tmp_path, tmp_path / "binary", f"a{chr(0)}b", "n" * 300):
        with pytest.raises(OptionError):
            load(place)


@pytest.mark.parametrize(
    ("given", "count"),
    [("5MB", 5_000_000), ("5 mib", 5 * 2**20), ("1.5kB", 1500), (7, 7), ("1_000", 1000), (1e3, 1000)],
)
def test_sizes(given: object, count: int) -> None:
    assert size(given, "it") == count


@pytest.mark.parametrize(
    "given", ["", "MB", "-5MB", "0", "nan", "inf", "1e400", "5MBB", "5 PB", "0x5", -1, True, [], b"5MB"]
)
def test_what_is_no_size(given: object) -> None:
    with pytest.raises(OptionError, match=r"it is .*, expected a size of at least one byte"):
        size(given, "it")
