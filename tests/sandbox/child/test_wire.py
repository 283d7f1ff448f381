"""Values between the two processes of a test: sizes are checked, and only plain types come out."""

import base64
import json
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from clearhead.sandbox.child import batch, judging, wire
from clearhead.sandbox.limits import Outcome


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        with suppress(OSError):  # a test may have closed it
            os.close(end)


def no_handle(value: object) -> dict[str, object]:
    raise AssertionError(f"{value!r} travels by itself")


def there_and_back(value: object) -> object:
    return wire.decode(json.loads(json.dumps(wire.encode(value, no_handle))), no_handle)


def test_a_size_beyond_the_limit_is_refused_before_anything_is_read(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], struct.pack("<I", wire.LARGEST + 1))
    os.close(pipe[1])
    with pytest.raises(wire.WireError, match="33,554,433 bytes; at most 33,554,432"):
        wire.receive(pipe[0])


def test_what_is_too_large_to_hand_over_arrives_as_an_error(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "LARGEST", 331)
    wire.send(pipe[1], {"value": "x" * (331 - len('{"value": ""}'))})
    assert len(wire.receive(pipe[0])["value"]) == 318
    wire.send(pipe[1], {"value": "x" * 319})
    raised = wire.receive(pipe[0])["raised"]
    assert (raised["type"], raised["message"][:26]) == ("OverflowError", "the value takes 332 bytes;")
    with pytest.raises(OverflowError, match="at most 331"):
        judging.Link(pipe[0]).read({"raised": raised})


@pytest.mark.parametrize("said", [b"[1]", b"not JSON", b"[" * 50_000, b"\xff"])
def test_nonsense_is_refused(pipe: tuple[int, int], said: bytes) -> None:
    os.write(pipe[1], struct.pack("<I", len(said)) + said)
    with pytest.raises(wire.WireError, match="not a message"):
        wire.receive(pipe[0])


class Sly(str):
    """Text that says it equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


def test_a_kind_of_text_of_the_programs_own_travels_as_plain_text() -> None:
    sent = wire.encode(Sly("a"), no_handle)
    assert type(sent) is str
    assert sent != "b"
    for plain in ("a", True, None, 3, -(2**70), 0.5, float("inf"), [1, ("t", {"k": 2})]):
        back = there_and_back(plain)
        assert (type(back), back) == (type(plain), plain)


def test_a_tensor_comes_back_whole_and_a_dtype_as_itself() -> None:
    sent = torch.randn(2, 3, 5, dtype=torch.bfloat16).mT.requires_grad_()
    back = there_and_back(sent)
    assert isinstance(back, torch.Tensor)
    assert torch.equal(back, sent)
    assert (back.dtype, back.requires_grad) == (torch.bfloat16, True)
    assert there_and_back(torch.empty(0, 7)).shape == (0, 7)  # type: ignore[union-attr]
    assert there_and_back(torch.float16) is torch.float16


RAW = base64.b64encode(bytes(24)).decode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"dtype": "Tensor"}, "not a dtype"),
        ({"dtype": "load"}, "not a dtype"),
        ({"dtype": ["float32"]}, "not a dtype"),
        ({"tensor": RAW, "dtype": "ones", "shape": [6]}, "not a dtype"),
        ({"tensor": RAW, "dtype": "float32", "shape": [7]}, "do not fit its shape"),
        ({"tensor": RAW, "dtype": "float32", "shape": [-2, -3]}, "do not fit its shape"),
        ({"tensor": "*", "dtype": "float32", "shape": []}, "not a value"),
        ({"tensor": RAW, "dtype": "float32"}, "not a value"),
        ({"i": 5}, "not a value"),
        ({"d": [["k"]]}, "not a value"),
        ([1], "not a value"),
    ],
)
def test_what_no_honest_side_sends_is_refused(data: object, words: str) -> None:
    with pytest.raises(wire.WireError, match=words):
        wire.decode(data, no_handle)


def test_what_is_nested_too_deep_travels_as_a_handle_and_is_not_decoded() -> None:
    deep: object = 1
    for _ in range(60):
        deep = [deep]
    assert "handle" in json.dumps(wire.encode(deep, lambda _: {"handle": 7}))
    for _ in range(60):
        deep = {"l": [deep]}
    with pytest.raises(wire.WireError, match="too deep"):
        wire.decode(deep, no_handle)


def test_a_programs_names_come_after_pythons_own_and_the_libraries() -> None:
    theirs = SimpleNamespace(len=lambda _: 99, torch="theirs", math="theirs", attend=lambda x: x + 1)
    names = judging.Names(learner=theirs)
    exec("found = len([1, 2]), torch.__name__, math.pi > 3, attend(4)", names)
    assert names["found"] == (2, "torch", True, 5)
    with pytest.raises(KeyError):
        names["len"]
    with pytest.raises(NameError):
        exec("nobody", names)


@pytest.mark.parametrize(
    "kind", ["print", "SystemExit", "KeyboardInterrupt", "GeneratorExit", "Exception", "__import__", "x"]
)
def test_only_an_ordinary_exception_is_raised_again_as_itself(kind: str) -> None:
    with pytest.raises(judging.LearnerError, match="X: said"):
        judging.Link(-1).read({"raised": {"type": "X", "message": "said", "kinds": [kind]}})
    with pytest.raises(KeyError, match="said"):
        judging.Link(-1).read({"raised": {"type": "X", "message": "said", "kinds": [kind, "KeyError"]}})


MEMORY = {"type": "MemoryError", "message": "", "file": "", "line": None, "chunk": 0, "kinds": ["MemoryError"]}
FINE = {"raised": None, "values": {}}


def whole(**more: object) -> Outcome:
    fields = {"stdout": "a|b|", "stderr": "||", "exit_code": 0, "stopped": None, "seconds": 3.0, **more}
    return Outcome(**fields)  # type: ignore[arg-type]


def test_a_batch_counts_only_where_it_came_to_its_end_and_had_memory() -> None:
    found = batch.outcomes(whole(), [FINE, FINE], "|", 2)
    assert found is not None
    assert [(one.stdout, one.seconds) for one in found] == [("a", 1.5), ("b", 1.5)]
    assert batch.outcomes(whole(), [FINE], "|", 2) is None
    assert batch.outcomes(whole(), [FINE, FINE, FINE], "|", 3) is None
    assert batch.outcomes(whole(stopped="time"), [FINE, FINE], "|", 2) is None
    assert batch.outcomes(whole(exit_code=1), [FINE, FINE], "|", 2) is None
    assert batch.outcomes(whole(), [FINE, {"raised": MEMORY, "values": {}}], "|", 2) is None


@pytest.mark.parametrize(
    "said", ["MemoryError: no", "WireError: the program ended", "RuntimeError: can't allocate memory"]
)
def test_a_batch_of_verdicts_that_was_disturbed_is_run_again(said: str) -> None:
    def tests(message: str) -> list[dict[str, object]]:
        return [{"raised": None, "tests": [["adds", False, message, 3]]}]

    assert batch.verdicts([whole(), whole()], [FINE], tests(said), 1) is None
    assert batch.verdicts([whole(), whole()], [{"raised": MEMORY}], tests("wrong"), 1) is None
    assert batch.verdicts([whole(), whole(stopped="memory")], [FINE], tests("wrong"), 1) is None
    assert batch.verdicts([whole(), whole()], [FINE], [], 1) is None
    found = batch.verdicts([whole(), whole()], [FINE], tests("wrong"), 1)
    assert found is not None
    assert found[0][0].message == "wrong"
