"""Continuing a written text: the model reads only the new tokens, for the same browser, for some minutes."""

from typing import Any

import pytest

from clearhead.capture.models.continuation import Continuation
from clearhead.studio.lens import continuations, readings, written_records
from clearhead.studio.lens.continuations import Continuations
from studio.conftest import Visitor
from studio.lens.test_writing import lines


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> Any:
    """How many tokens each forward pass of the small model reads."""
    monkeypatch.setattr(written_records, "CONTINUATIONS", Continuations())
    loaded: Any = readings.READINGS.loaded("induction", lambda *_: None)
    read: list[int] = []
    hook = loaded.writer.register_forward_pre_hook(
        lambda _model, _args, given: read.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    yield read
    hook.remove()


def written(found: list[dict[str, Any]]) -> list[int]:
    return [line["token"]["id"] for line in found if "token" in line]


def test_going_on_and_another_token_read_only_what_is_new(visitor: Visitor, lengths: list[int]) -> None:
    begun = written(lines(visitor, count=5))
    assert lengths[0] > 30
    assert lengths[1:] == [1, 1, 1, 1]
    lengths.clear()
    more = written(lines(visitor, count=3, written=begun))
    assert lengths == [1, 1, 1]
    lengths.clear()
    lines(visitor, count=2, written=[*begun[:2], more[0]])  # another token in the third place
    assert lengths == [1, 1]
    lengths.clear()
    assert "rows" in lines(visitor, "/rows", written=begun[:2] + more[:1] + [1], layer=1, head=0)[-1]
    lengths.clear()
    lines(visitor, count=1, written=begun, without=[[0, 3]])  # other heads have other keys
    assert lengths[0] > 30


def test_the_heads_of_a_text_that_went_on_are_not_read_again(
    visitor: Visitor, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from clearhead.capture.models import writing

    begun = written(lines(visitor, count=5))
    whole = begun + written(lines(visitor, count=3, written=begun))
    monkeypatch.setattr(writing, "read_again", None)
    assert "rows" in lines(visitor, "/rows", written=whole, layer=1, head=2)[-1]


def test_another_browser_reads_the_text_itself(visitor: Visitor, lengths: list[int]) -> None:
    begun = written(lines(visitor, count=5))
    visitor.client.cookies.clear()
    lengths.clear()
    lines(visitor, count=1, written=begun)
    assert lengths[0] > 30


def kept_text(number: int, size: int = 1, loaded: Any = "a model") -> Any:
    class Sized(Continuation):
        nbytes = size

        def usable(self, ids: Any) -> int:
            return len(ids) if ids[0] == number else 0

    return Sized(loaded, (number,), (), None, None)


def test_number_memory_and_time_are_bounded() -> None:
    now = [0.0]
    kept = Continuations(clock=lambda: now[0])
    always = lambda _model: True  # noqa: E731
    for number in range(3):
        kept.put("one", kept_text(number), always)
    assert kept.take("one", "a model", [0], ()) is None  # two of a browser
    assert kept.take("another", "a model", [2], ()) is None
    assert kept.take("one", "another model", [2], ()) is None
    assert kept.take("one", "a model", [2], ((0, 1),)) is None
    assert kept.take("one", "a model", [2], ()).ids == (2,)
    assert kept.take("one", "a model", [2], ()) is None  # used up
    for number in range(20):
        kept.put(str(number), kept_text(number), always)
    assert len(kept) == continuations.OF_ALL
    kept.put("large", kept_text(99, continuations.MOST_BYTES), always)
    assert len(kept) == 1
    kept.put("larger", kept_text(99, continuations.MOST_BYTES + 1), always)
    assert len(kept) == 0
    kept.put("", kept_text(5), always)
    assert len(kept) == 0  # nobody's
    kept.put("one", kept_text(5), always)
    now[0] = continuations.SECONDS - 1
    kept.drop_old()
    assert len(kept) == 1
    now[0] = continuations.SECONDS
    kept.drop_old()
    assert len(kept) == 0


def test_texts_of_a_model_that_is_no_longer_loaded_are_dropped() -> None:
    kept = Continuations()
    kept.put("one", kept_text(1, loaded="an old model"), lambda _model: True)
    kept.put("two", kept_text(2, loaded="a new model"), lambda model: model == "a new model")
    assert len(kept) == 1
