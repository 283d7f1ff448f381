"""What the reading Lens saves, in Chromium: every file of one head and of all, with the numbers of the record."""

import csv
import json
from collections.abc import Iterator
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from PIL import Image
from playwright.sync_api import Page, expect
from torch import Tensor

from clearhead import capture
from clearhead.views.page import saving

TEXT = "the lighthouse keeper wrote: the ligh"


def opened(page: Page, name: str) -> bytes:
    """What a link of the page downloads."""
    with page.expect_download() as download:
        page.locator(".lens-save").get_by_role("link", name=name, exact=True).click()
    assert download.value.suggested_filename.endswith(f".{name.lower()}")
    return Path(download.value.path()).read_bytes()


def same(rows: list[dict[str, Any]], exact: list[Tensor]) -> Iterator[bool]:
    """Whether the weight of each row is that of the record."""
    for row in rows:
        layer, head, query, key = (int(row[name]) for name in ("layer", "head", "query", "key"))
        yield float(row["weight"]) == pytest.approx(float(exact[layer][head, query, key]), rel=4e-6)


@pytest.mark.stress
def test_numbers_and_pictures_are_those_of_the_record(page: Page) -> None:
    record = capture.read(capture.load("induction"), TEXT).record
    exact = [matrix.to_dense()[0] for matrix in record.values()]
    page.goto(f"/lens?text={TEXT}&model=induction&layer=1&head=2&token=-1")
    label = page.locator(".lens-save > span")
    expect(label).to_have_text("Save layer 1, head 2:")
    files = {name: opened(page, name) for name in ("CSV", "JSON", "SVG", "PNG", "PDF")}

    rows = list(csv.DictReader(StringIO(files["CSV"].decode())))
    assert len(rows) == int((exact[1][2] > 0).sum())
    assert all(same(rows, exact))
    assert {(row["layer"], row["head"]) for row in rows} == {("1", "2")}
    (head,) = json.loads(files["JSON"])["heads"]
    assert (head["layer"], head["head"]) == (1, 2)
    assert len(head["weights"]) == exact[1].shape[1]
    for row, given in zip(head["weights"], exact[1][2].tolist(), strict=True):
        assert row == pytest.approx(given, abs=1e-5)
    assert "layer 1, head 2" in " ".join(fromstring(files["SVG"]).itertext())  # noqa: S314 — of our own page
    assert Image.open(BytesIO(files["PNG"])).width > 400
    assert files["PDF"].startswith(b"%PDF")
    if "parquet" in saving.kinds():
        from pyarrow import parquet

        table = parquet.read_table(BytesIO(opened(page, "Parquet"))).to_pylist()
        assert len(table) == len(rows)
        assert all(same(table, exact))

    page.get_by_role("button", name="Close").click()
    expect(label).to_have_text("Save all heads:")
    rows = list(csv.DictReader(StringIO(opened(page, "CSV").decode())))
    assert {(int(row["layer"]), int(row["head"])) for row in rows} == {
        (layer, head) for layer, weights in enumerate(exact) for head in range(len(weights))
    }
    assert all(same(rows, exact))
