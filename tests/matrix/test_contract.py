"""One contract for every operation: what the dense float64 matrix gives, on every kind of matrix."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.matrix import AttentionMatrix

from .cases import CASES, B, Case, dense

# Per operation: how to ask the matrix, and how the dense weights W (B, H, L, S) answer.
Ask = Callable[[AttentionMatrix], Tensor]
Oracle = Callable[[Tensor], Tensor]


def columns(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_dtype(x: Tensor, like: AttentionMatrix | Tensor) -> Tensor:
    return x.to(like.dtype)


def times(*lead: str) -> tuple[Ask, Oracle]:
    """A @ X for X with these leading axes."""

    def x(m: AttentionMatrix | Tensor) -> Tensor:
        sizes = {"B": m.shape[0], "H": m.shape[1], "1": 1, "W": 11, "S": m.shape[3]}
        return same_dtype(columns(*(sizes[letter] for letter in lead)), m)

    return (lambda A: A @ x(A)), (lambda W: W @ x(W))


def times_transposed(*lead: str) -> tuple[Ask, Oracle]:
    def y(m: AttentionMatrix | Tensor) -> Tensor:
        sizes = {"B": m.shape[0], "H": m.shape[1], "1": 1, "W": 13, "L": m.shape[2]}
        return same_dtype(columns(*(sizes[letter] for letter in lead)), m)

    return (lambda A: A.mT @ y(A)), (lambda W: W.mT @ y(W))


def distance(W: Tensor, offset: int = 0) -> Tensor:
    rows, cols = torch.arange(W.shape[2])[:, None] + offset, torch.arange(W.shape[3])
    return (W * (rows - cols).abs()).sum(-1)


OPERATIONS: dict[str, tuple[Ask, Oracle]] = {
    "A @ vector": times("S"),
    "A @ X": times("S", "W"),
    "A @ X, a head each": times("H", "S", "W"),
    "A @ X, all its own": times("B", "H", "S", "W"),
    "A @ X, a batch each": times("B", "1", "S", "W"),
    "A.mT @ vector": times_transposed("L"),
    "A.mT @ Y": times_transposed("L", "W"),
    "A.mT @ Y, all its own": times_transposed("B", "H", "L", "W"),
    "to_dense": (lambda A: A.to_dense(), lambda W: W),
    "entropy": (lambda A: A.entropy(), lambda W: torch.special.entr(W).sum(-1)),
    "received": (lambda A: A.received(), lambda W: W.sum(2)),
    "topk": (lambda A: A.topk(min(4, A.shape[3]))[0], lambda W: W.topk(min(4, W.shape[3]))[0]),
    "topk of all": (lambda A: A.topk(A.shape[3])[0], lambda W: W.topk(W.shape[3])[0]),
    "pooled": (lambda A: A.pooled(5, 3), lambda W: F.adaptive_avg_pool2d(W, (5, 3))),
    "pooled finer than the matrix": (lambda A: A.pooled(37, 41), lambda W: F.adaptive_avg_pool2d(W, (37, 41))),
    "mean_distance": (lambda A: A.mean_distance(), distance),
    "mean_distance, offset": (lambda A: A.mean_distance(offset=8), lambda W: distance(W, 8)),
}
DIFFERENTIABLE = ("A @ X", "A.mT @ Y, all its own", "to_dense", "entropy", "received", "pooled", "mean_distance")
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-11, torch.bfloat16: 1e-2}


def assert_close(ours: Tensor, exact: Tensor, dtype: torch.dtype, slack: float = 1) -> None:
    assert ours.shape == exact.shape
    assert torch.isfinite(ours).all()
    tolerance = TOLERANCE[dtype] * slack
    torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_matrix(name: str, operation: str):
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    # A float32 logit of size x is uncertain by x·6e-8, and so is its weight, relatively.
    slack = 10 if name == "large logits" else 1
    assert_close(ask(case.matrix()), oracle(case.dense()[0]), torch.float32, slack)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_matrix_in_float64_and_in_many_blocks(name: str, operation: str, small_blocks: None):
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    assert_close(ask(case.matrix(torch.float64)), oracle(case.dense(torch.float64)[0]), torch.float64)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", ["plain", "padding, causal, shared heads", "sinks, softcap, bias, mask"])
def test_sixteen_bits_cost_one_rounding_at_the_door(name: str, operation: str):
    """Given bfloat16 tensors, the answer is that of their exact values, rounded at most once."""
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    W = case.dense(torch.bfloat16)[0]
    operand = oracle(W) if "@" not in operation else None
    answer = ask(case.matrix(torch.bfloat16))
    if operand is None:  # the operand itself is bfloat16: so must the oracle's be
        rounded = Rounded(W)
        operand = oracle(rounded).double()
    assert_close(answer, operand, torch.bfloat16)


class Rounded(torch.Tensor):
    """The dense matrix, float64, that calls itself bfloat16 when an operand is made for it."""

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16

    def __matmul__(self, other: Tensor) -> Tensor:
        return self.as_subclass(torch.Tensor) @ other.double()

    @property
    def mT(self) -> "Rounded":
        return self.as_subclass(torch.Tensor).mT.as_subclass(Rounded)


@pytest.mark.parametrize("operation", DIFFERENTIABLE)
@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_those_of_the_dense_matrix(name: str, operation: str, small_blocks: None):
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    if name == "one key" and operation == "entropy":
        pytest.skip("one key: the entropy is 0 whatever the query, and its dense gradient is 0·log 0")

    def gradients(answer: Callable[[dict[str, Tensor | None]], Tensor]) -> list[Tensor]:
        tensors = case.tensors(torch.float64)
        learns = [t.requires_grad_() for t in tensors.values() if t is not None and t.is_floating_point()]
        out = answer(tensors)
        return list(torch.autograd.grad((out * columns(*out.shape, seed=9)).sum(), learns, allow_unused=True))

    def exact(tensors: dict[str, Tensor | None]) -> Tensor:
        W = dense(tensors, case.options())[0]
        if operation == "entropy":  # entr's slope at 0 is infinite; a masked weight has none
            return -(W * torch.where(W > 0, W, 1.0).log()).sum(-1)
        return oracle(W)

    ours = gradients(lambda tensors: ask(AttentionMatrix(**tensors, **case.options())))
    for mine, theirs in zip(ours, gradients(exact), strict=True):
        if theirs is None:
            assert mine is None or mine.abs().max() < 1e-10
            continue
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_topk_names_the_keys_its_weights_stand_at(name: str):
    case = CASES[name]
    values, keys = case.matrix(torch.float64).topk(min(4, case.keys))
    found = case.dense(torch.float64)[0].gather(-1, keys)
    torch.testing.assert_close(values, found, rtol=1e-10, atol=1e-12)
    assert keys.dtype == torch.int64


def test_the_lse_may_be_given_and_is_else_found():
    matrix = CASES["sinks, causal, shared heads"].matrix(torch.float64)
    again = AttentionMatrix(
        **CASES["sinks, causal, shared heads"].tensors(torch.float64),
        **CASES["sinks, causal, shared heads"].options(),
        lse=matrix.lse,
    )
    assert torch.equal(again.entropy(), matrix.entropy())
    assert again.lse is matrix.lse


def test_an_operand_of_a_wider_dtype_gives_a_wider_answer():
    matrix = Case().matrix(torch.float32)
    assert (matrix @ columns(31, 3)).dtype == torch.float64
    assert (matrix.mT @ columns(23, 3).bfloat16()).dtype == torch.float32
    assert matrix.shape == (B, 6, 23, 31)
    assert matrix.mT.shape == (B, 6, 31, 23)
    assert matrix.mT.mT is matrix
