"""A reading as a file: pictures, and tables that hold the weights themselves."""

import csv
import json
from dataclasses import replace
from io import BytesIO, StringIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import torch
from PIL import Image

from clearhead.capture import Reading, Record
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.views.page import saving
from clearhead.views.page.address import lens_address
from clearhead.views.page.saving import COLUMNS, saved

TOKENS = ["=SUM(A1)", "+b", "c", "-d", "@e", "f", "g"]


@pytest.fixture
def reading() -> Reading:
    torch.manual_seed(0)
    layers = {name: AttentionMatrix(torch.randn(1, 3, 7, 5), torch.randn(1, 3, 7, 5)) for name in ("one", "two")}
    return Reading(Record.of(layers), TOKENS, "a model", list(range(7)), [False] * 7, [0] * 7)


def table(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(content.decode())))


def test_a_table_of_one_head_has_every_weight(reading: Reading) -> None:
    rows = table(saved(reading, "csv", layer=1, head=2))
    dense = list(reading.record.values())[1].to_dense()[0, 2]
    assert len(rows) == 49
    for row in rows:
        assert float(row["weight"]) == pytest.approx(float(dense[int(row["query"]), int(row["key"])]), rel=4e-6)
        assert (row["layer"], row["head"], row["name"]) == ("1", "2", "two")
    assert {row["key_token"] for row in rows} == {"'=SUM(A1)", "'+b", "c", "'-d", "'@e", "f", "g"}  # no formula


def test_a_table_of_all_heads_has_their_strongest_links(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saving, "LINKS", 2)
    rows = table(saved(reading, "csv"))
    assert len(rows) == 2 * 3 * 7 * 2
    dense = torch.stack([matrix.to_dense()[0] for matrix in reading.record.values()])
    best = dense.topk(2).values
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(float(best.double().sum()), rel=1e-6)
    monkeypatch.setattr(saving, "ALL_WEIGHTS", 48)
    assert len(table(saved(reading, "csv", layer=0, head=0))) == 14


def test_json_is_the_listing(reading: Reading) -> None:
    listed = json.loads(saved(reading, "json", layer=0, head=1))
    assert [(head["layer"], head["head"]) for head in listed["heads"]] == [(0, 1)]


def test_parquet_where_pyarrow_is(reading: Reading) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install pyarrow")
    read = parquet.read_table(BytesIO(saved(reading, "parquet", layer=1, head=2)))
    assert read.column_names == list(COLUMNS)
    assert read.num_rows == 49
    assert "parquet" in saving.kinds()


def test_without_pyarrow_it_says_what_to_install(reading: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        saved(reading, "parquet")


@pytest.mark.slow
@pytest.mark.parametrize("place", [{}, {"layer": 1, "head": 0}], ids=["all", "one"])
@pytest.mark.parametrize("two", [False, True], ids=["one model", "two models"])
def test_pictures_are_those_of_the_plots(reading: Reading, place: dict[str, int], two: bool) -> None:
    other = replace(reading, model_name="another") if two else None
    assert Image.open(BytesIO(saved(reading, "png", second=other, **place))).format == "PNG"
    drawn = saved(reading, "svg", second=other, **place).decode()
    assert drawn.startswith("<?xml")
    assert ("another" in drawn) == two


@pytest.mark.parametrize(
    ("kind", "place"), [("exe", {}), ("csv", {"layer": 2, "head": 0}), ("svg", {"layer": 0, "head": 3})]
)
def test_what_cannot_be_saved(reading: Reading, kind: str, place: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        saved(reading, kind, **place)


def test_an_address_holds_what_a_command_shows() -> None:
    assert lens_address("a & b", "m", second="n", target="t", head=1, rollout=True) == (
        "/lens?text=a+%26+b&model=m&second=n&target=t&rollout=1&layer=0&head=1&token=-1"
    )
    assert lens_address("a" * 2000) is None


def test_an_address_names_a_model_folder_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").touch()
    monkeypatch.chdir(tmp_path)
    address = lens_address("a cat", "mine", second="induction")
    assert parse_qs(urlsplit(address).query) == {
        "text": ["a cat"], "model": [str(tmp_path / "mine")], "second": ["induction"],
    }  # fmt: skip
