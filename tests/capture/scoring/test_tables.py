"""record.scores(): the scores of every head as a list, or as a table of a library that is installed."""

import math
import sys
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch

from clearhead import AttentionMatrix
from clearhead.capture import HeadEffects, HeadScores, Record, score_record
from clearhead.capture.scoring.tables import LIBRARIES
from clearhead.errors import ExtraError, OptionError

COLUMNS = tuple(field.name for field in fields(HeadScores))
TOKENS = torch.tensor([[5, 7, 9, 5, 7]])


def matrix(heads, seed):
    q, k = torch.randn(2, 1, heads, 5, 3, generator=torch.Generator().manual_seed(seed))
    return AttentionMatrix(q, k, is_causal=True)


@pytest.fixture
def record():
    return Record.of({"first": matrix(2, 0), "second": matrix(3, 1)})


def same(ours, theirs):
    return ours == theirs if isinstance(ours, str) else ours == pytest.approx(theirs, rel=1e-5, nan_ok=True)


def test_a_list_is_what_score_record_gives(record):
    ours, theirs = record.scores(TOKENS), score_record(record, TOKENS)
    assert [(row.layer, row.head) for row in ours] == [("first", 0), ("first", 1), *[("second", n) for n in range(3)]]
    for row, other in zip(ours, theirs, strict=True):
        assert isinstance(row, HeadScores)
        assert all(same(getattr(row, name), getattr(other, name)) for name in COLUMNS)


def test_without_token_ids_the_scores_that_need_none_are_there(record):
    for row, known in zip(record.scores(), record.scores(TOKENS), strict=True):
        for name in ("layer", "head", "previous_token", "first_token", "breadth", "positional"):
            assert same(getattr(row, name), getattr(known, name))
        assert math.isnan(row.induction)
        assert math.isnan(row.duplicate_token)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_that_is_missing_is_named_with_the_command(record, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ExtraError, match=rf"record.scores needs {library} .*pip install {library}"):
        record.scores(as_=library)


def test_another_name_is_refused_with_those_there_are(record):
    with pytest.raises(OptionError, match="as_ is 'arrow', expected one of 'pandas', 'polars', 'xarray'"):
        record.scores(as_="arrow")
    with pytest.raises(OptionError, match="library is 'arrow', expected one of 'pandas'"):
        HeadEffects([], 0.0).table("arrow")


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_gets_one_column_a_score_and_one_row_a_head(record, library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, SimpleNamespace(DataFrame=dict))
    frame, rows = record.scores(TOKENS, as_=library), record.scores(TOKENS)
    assert tuple(frame) == COLUMNS
    for name in COLUMNS:
        assert all(same(*pair) for pair in zip(frame[name], [getattr(row, name) for row in rows], strict=True))


def test_a_dataset_is_a_grid_of_layers_and_heads(record, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", SimpleNamespace(Dataset=lambda variables, coords: (variables, coords)))
    variables, coords = record.scores(TOKENS, as_="xarray")
    assert coords == {"layer": ["first", "second"], "head": [0, 1, 2]}
    axes, values = variables["previous_token"]
    rows = {(row.layer, row.head): row.previous_token for row in record.scores(TOKENS)}
    assert axes == ("layer", "head")
    assert math.isnan(values[0][2])  # the first layer has two heads
    assert same(values[1], [rows["second", head] for head in range(3)])


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_itself_takes_it(record, library):
    pytest.importorskip(library, reason=f"{library} is not installed")
    table = record.scores(TOKENS, as_=library)
    rows = record.scores(TOKENS)
    if library == "xarray":
        assert dict(table.sizes) == {"layer": 2, "head": 3}
        assert same(float(table.breadth.sel(layer="second", head=1)), rows[3].breadth)
    else:
        assert table.shape == (5, len(COLUMNS))
        assert same(table["breadth"].to_list(), [row.breadth for row in rows])
