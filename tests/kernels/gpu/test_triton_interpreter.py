"""When the Triton kernels count as interpreted: as Triton itself reads TRITON_INTERPRET."""

import pytest

from clearhead.kernels.triton.blocks import is_interpreted


@pytest.mark.parametrize(
    ("value", "interpreted"),
    [
        (None, False),
        ("", False),
        ("0", False),
        ("false", False),
        ("1", True),
        ("true", True),
        ("True", True),
        ("on", True),
    ],
)
def test_the_variable_is_read_as_triton_reads_it(
    value: str | None, interpreted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    else:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    assert is_interpreted.__wrapped__() is interpreted


def test_triton_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    knobs = pytest.importorskip("triton.knobs", reason="Triton is not installed")
    for value in ("", "0", "1", "true", "yes", "on", "y", "no", "2"):
        monkeypatch.setenv("TRITON_INTERPRET", value)
        assert is_interpreted.__wrapped__() is knobs.runtime.interpret, value
