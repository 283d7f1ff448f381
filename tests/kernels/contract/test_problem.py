"""Validation of a problem: each mistake has its own message, with the caller's shapes."""

from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.errors import DeviceError, DtypeError, KernelError, OptionError, ShapeError
from clearhead.kernels import Problem


def problem(**changes: Any) -> Problem:
    fields: dict[str, Any] = {
        "query": torch.zeros(2, 6, 5, 7),
        "key": torch.zeros(2, 3, 11, 7),
        "value": torch.zeros(2, 3, 11, 13),
        "scale": 1.0,
    }
    return Problem(**(fields | changes))


def test_a_good_problem_passes() -> None:
    assert kernels.run(problem()).out.shape == (2, 6, 5, 13)
    assert problem().group == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"query": torch.zeros(6, 5, 7)}, ShapeError, r"query has 3 axes, expected 4"),
        ({"value": torch.zeros(3, 11, 7)}, ShapeError, r"value has 3 axes"),
        ({"key": torch.zeros(2, 3, 11, 8)}, ShapeError, r"key has head_dim 8, query has head_dim 7"),
        ({"key": torch.zeros(1, 3, 11, 7)}, ShapeError, r"must have the same B"),
        ({"value": torch.zeros(2, 3, 10, 7)}, ShapeError, r"key and value the same H and S"),
        ({"query": torch.zeros(2, 5, 5, 7)}, ShapeError, r"3 heads, which does not divide query's 5"),
        ({"key": torch.zeros(2, 3, 11, 7).half()}, DtypeError, r"key is torch.float16 and query is torch.float32"),
        ({"allow": torch.ones(5, 10, dtype=torch.bool)}, ShapeError, r"allow does not broadcast .* \(2, 6, 5, 11\)"),
        ({"allow": torch.ones(1, 1, 2, 6, 5, 11, dtype=torch.bool)}, ShapeError, r"allow does not broadcast"),
        ({"allow": torch.ones(5, 11)}, DtypeError, r"allow is torch.float32, expected torch.bool"),
        ({"bias": torch.ones(5, 11, dtype=torch.int64)}, DtypeError, r"bias is torch.int64"),
        ({"sinks": torch.ones(3)}, ShapeError, r"sinks must be .* shape \(6,\)"),
        ({"dropout_p": 1.0}, OptionError, r"dropout_p is 1.0"),
        ({"dropout_p": float("nan")}, OptionError, r"dropout_p is nan"),
        ({"softcap": 0.0}, OptionError, r"softcap is 0.0"),
        ({"key": torch.zeros(2, 3, 11, 7, device="meta")}, DeviceError, r"key is on meta, query is on cpu"),
        ({"allow": torch.ones(5, 11, dtype=torch.bool, device="meta")}, DeviceError, r"allow is on meta"),
    ],
)
def test_a_mistake_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kernels.run(problem(**changes))


def test_integers_are_refused() -> None:
    tensors = {name: getattr(problem(), name).long() for name in ("query", "key", "value")}
    with pytest.raises(DtypeError, match="expected one floating-point dtype"):
        kernels.run(problem(**tensors))


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(
        KernelError, match=r"no kernel named 'abacus'. The kernels are native, triton, torch, reference"
    ):
        kernels.run(problem(), kernel="abacus")


def negated() -> Problem:
    """Return a problem whose key's memory holds the negatives of its numbers, which the native kernel refuses."""
    return problem(key=torch.complex(problem().key, problem().key).conj().imag)


def test_a_kernel_that_refuses_names_the_reason_and_alternatives() -> None:
    with pytest.raises(KernelError, match=r"'native' cannot compute this: .*'torch' or 'reference'"):
        kernels.run(negated(), kernel="native")


def test_select_names_the_kernels_it_passed_over() -> None:
    choice = kernels.select(negated())
    assert choice.kernel == "torch"
    assert "native" in choice.refused
    assert "native" in choice.reason
    assert "\n" not in choice.reason


def test_available_lists_every_kernel_with_a_reason() -> None:
    rows = kernels.available()
    assert [row.kernel for row in rows] == ["native", "triton", "torch", "reference"]
    assert all(row.reason and "\n" not in row.reason for row in rows)
