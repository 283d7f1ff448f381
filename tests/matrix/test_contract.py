"""The contract of every operation: it equals the dense float64 matrix, on every kind of matrix."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead.matrix import AttentionMatrix

from .cases import CASES, B, Case, dense

pytestmark = pytest.mark.pairwise(name=CASES)

# Per operation: how it is called on the matrix, and the same on the dense weights W (B, H, L, S).
Ask = Callable[[AttentionMatrix], Tensor]
Oracle = Callable[[Tensor], Tensor]


def columns(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_dtype(x: Tensor, like: AttentionMatrix | Tensor) -> Tensor:
    return x.to(like.dtype)


def times(*lead: str) -> tuple[Ask, Oracle]:
    """A @ X for X with these axes."""

    def x(m: AttentionMatrix | Tensor) -> Tensor:
        sizes = {"B": m.shape[0], "H": m.shape[1], "1": 1, "W": 11, "S": m.shape[3]}
        return same_dtype(columns(*(sizes[letter] for letter in lead)), m)

    return (lambda A: A @ x(A)), (lambda W: W @ x(W))


def times_transposed(*lead: str) -> tuple[Ask, Oracle]:
    def y(m: AttentionMatrix | Tensor) -> Tensor:
        sizes = {"B": m.shape[0], "H": m.shape[1], "1": 1, "W": 13, "L": m.shape[2]}
        return same_dtype(columns(*(sizes[letter] for letter in lead)), m)

    return (lambda A: A.mT @ y(A)), (lambda W: W.mT @ y(W))


def away(W: Tensor, offset: int = 0) -> Tensor:
    return torch.arange(W.shape[2])[:, None] + offset - torch.arange(W.shape[3])


def thirds(W: Tensor) -> Tensor:
    """batch + row + key, (B, 1, L, S)."""
    return torch.arange(W.shape[0]).view(-1, 1, 1, 1) + torch.arange(W.shape[2])[:, None] + torch.arange(W.shape[3])


def distance(W: Tensor, offset: int = 0) -> Tensor:
    return (W * away(W, offset).abs()).sum(-1)


def spread(W: Tensor, offset: int = 3) -> Tensor:
    shares = W / W.sum(-1, keepdim=True).clamp_min(1e-300)
    mean = distance(shares, offset)
    variance = (shares * (away(W, offset).abs() - mean[..., None]) ** 2).sum(-1)
    return torch.where(variance > 1e-20, variance, 1.0).sqrt() * (variance > 1e-20)  # sqrt has no derivative at 0


def later(whole: Any) -> Any:
    """The second half of the rows of a matrix, or of numbers per row, (B, H, L)."""
    return (
        whole.rows(whole.shape[2] // 2, whole.shape[2])
        if isinstance(whole, AttentionMatrix)
        else whole[:, :, whole.shape[2] // 2 :]
    )


def effective(W: Tensor) -> Tensor:
    return W.sum(-1) ** 2 / (W**2).sum(-1).clamp_min(1e-300)


def kl(W: Tensor, V: Tensor) -> Tensor:
    return torch.where(W > 0, W * (W / V).log(), 0.0).sum(-1)


def part(m: AttentionMatrix | Tensor) -> tuple[slice, slice]:
    """A rectangle off the diagonal's corner, not empty in any case."""
    return slice(m.shape[2] // 3, m.shape[2]), slice(m.shape[3] // 4, m.shape[3] - m.shape[3] // 5)


def cut(W: Tensor) -> Tensor:
    return W[:, :, *part(W)]


def values(m: AttentionMatrix | Tensor) -> Tensor:
    return same_dtype(columns(m.shape[0], 2, m.shape[3], 5, seed=4), m)


def projection(m: AttentionMatrix | Tensor) -> Tensor:
    return same_dtype(columns(m.shape[1], 5, 13, seed=6), m)


def norms(W: Tensor, weight: Tensor | None = None) -> Tensor:
    v = values(W).repeat_interleave(W.shape[1] // 2, 1)
    return (v if weight is None else v @ weight).norm(dim=-1)[:, :, None]


OPERATIONS: dict[str, tuple[Ask, Oracle]] = {
    "A @ vector": times("S"),
    "A @ X": times("S", "W"),
    "A @ X, one per head": times("H", "S", "W"),
    "A @ X, one per batch entry and head": times("B", "H", "S", "W"),
    "A @ X, one per batch entry": times("B", "1", "S", "W"),
    "A.mT @ vector": times_transposed("L"),
    "A.mT @ Y": times_transposed("L", "W"),
    "A.mT @ Y, one per batch entry and head": times_transposed("B", "H", "L", "W"),
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
OPERATIONS |= {
    "maximum": (lambda A: A.maximum(), lambda W: W.amax(-1)),
    "effective_keys": (lambda A: A.effective_keys(), effective),
    "distance_spread": (lambda A: A.distance_spread(offset=3), spread),
    "mass_within": (lambda A: A.mass_within(4), lambda W: (W * (away(W).abs() <= 4)).sum(-1)),
    "mass_within, offset": (lambda A: A.mass_within(2, offset=9), lambda W: (W * (away(W, 9).abs() <= 2)).sum(-1)),
    "mass_on": (lambda A: A.mass_on([0, -1]), lambda W: W[..., [0, -1]].sum(-1) / (2 if W.shape[3] == 1 else 1)),
    "mass_on, boolean": (
        lambda A: A.mass_on(torch.arange(A.shape[3]) % 3 == 0),
        lambda W: W[..., torch.arange(W.shape[3]) % 3 == 0].sum(-1),
    ),
    "mass_where": (
        lambda A: A.mass_where(lambda batch, rows, keys: (rows[:, None] + keys + batch) % 3 == 0),
        lambda W: (W * ((thirds(W) % 3) == 0)).sum(-1),
    ),
    "pooled by max": (lambda A: A.pooled(5, 3, reduce="max"), lambda W: F.adaptive_max_pool2d(W, (5, 3))),
    "pooled part": (lambda A: A.pooled(3, 4, region=part(A)), lambda W: F.adaptive_avg_pool2d(cut(W), (3, 4))),
    "pooled part by max": (
        lambda A: A.pooled(3, 4, reduce="max", region=part(A)),
        lambda W: F.adaptive_max_pool2d(cut(W), (3, 4)),
    ),
    "diagonal": (lambda A: A.diagonal(), lambda W: W.diagonal(0, 2, 3)),
    "diagonal below": (lambda A: A.diagonal(-1), lambda W: W.diagonal(-1, 2, 3)),
    "diagonal above": (lambda A: A.diagonal(2), lambda W: W.diagonal(2, 2, 3)),
    "heads": (lambda A: A.heads([4, 0, 4]).to_dense(), lambda W: W[:, [4, 0, 4]]),
    "rows": (lambda A: A.rows(0, (A.shape[2] + 1) // 2).to_dense(), lambda W: W[:, :, : (W.shape[2] + 1) // 2]),
    "rows, received": (
        lambda A: A.rows(A.shape[2] // 2, A.shape[2]).received(),
        lambda W: W[:, :, W.shape[2] // 2 :].sum(2),
    ),
    "rows, mean_distance": (lambda A: later(A).mean_distance(), lambda W: later(distance(W))),
    "rows, mean_distance, offset": (
        lambda A: later(A).mean_distance(offset=8),
        lambda W: distance(W[:, :, W.shape[2] // 2 :], 8),
    ),
    "rows of heads, distance_spread": (
        lambda A: later(A).heads([4, 0]).distance_spread(),
        lambda W: later(spread(W, 0))[:, [4, 0]],
    ),
    "rows, mass_within": (lambda A: later(A).mass_within(4), lambda W: later((W * (away(W).abs() <= 4)).sum(-1))),
    "rows of rows, mass_where": (
        lambda A: later(later(A)).mass_where(lambda batch, rows, keys: (rows[:, None] + keys + batch) % 3 == 0),
        lambda W: later(later((W * ((thirds(W) % 3) == 0)).sum(-1))),
    ),
    "rows, survey": (lambda A: later(A).survey().mean_distance, lambda W: later(distance(W))),
    "rows, mean of heads": (
        lambda A: later(A).mean_heads().mean_distance(),
        lambda W: later(distance(W)).mean(1, True),
    ),
    "rows, mass_on": (lambda A: later(A).mass_on([0]), lambda W: later(W[..., 0])),
    "heads, received": (lambda A: A.heads(slice(1, 3)).received(), lambda W: W[:, 1:3].sum(2)),
    "one head, a row": (lambda A: A.heads(-1)[:, 0, 0], lambda W: W[:, -1, 0]),
    "kl of two heads": (lambda A: A.heads([0, 1]).kl(A.heads([2, 3])), lambda W: kl(W[:, [0, 1]], W[:, [2, 3]])),
    "inner of two heads": (
        lambda A: A.heads([0, 1]).inner(A.heads([2, 3])),
        lambda W: (W[:, [0, 1]] * W[:, [2, 3]]).sum(-1),
    ),
    "mean of heads @ X": (
        lambda A: A.mean_heads() @ columns(A.shape[3], 3).to(A.dtype),
        lambda W: W.mean(1, True) @ columns(W.shape[3], 3),
    ),
    "mean of heads, received": (lambda A: A.mean_heads().received(), lambda W: W.mean(1, True).sum(2)),
    "mean of heads, entropy": (
        lambda A: A.mean_heads().entropy(),
        lambda W: torch.special.entr(W.mean(1, True)).sum(-1),
    ),
    "mean of heads, maximum": (lambda A: A.mean_heads().maximum(), lambda W: W.mean(1, True).amax(-1)),
    "mean of heads, pooled": (
        lambda A: A.mean_heads().pooled(5, 3),
        lambda W: F.adaptive_avg_pool2d(W.mean(1, True), (5, 3)),
    ),
    "mean of heads, a part": (lambda A: A.mean_heads()[1, 0, -1:, 0:3], lambda W: W.mean(1, True)[1, 0, -1:, 0:3]),
    "value_weighted": (lambda A: A.value_weighted(values(A)).to_dense(), lambda W: W * norms(W)),
    "value_weighted @ X": (
        lambda A: A.value_weighted(values(A)) @ columns(A.shape[3], 2).to(A.dtype),
        lambda W: (W * norms(W)) @ columns(W.shape[3], 2),
    ),
    "value_weighted, projected, received": (
        lambda A: A.value_weighted(values(A), projection(A)).received(),
        lambda W: (W * norms(W, projection(W))).sum(2),
    ),
    "value_weighted, topk": (
        lambda A: A.value_weighted(values(A)).topk(1)[0],
        lambda W: (W * norms(W)).topk(1)[0],
    ),
    "gradient_times": (
        lambda A: A.gradient_times(columns(*A.shape[:3], 5).to(A.dtype), values(A)),
        lambda W: (W * (columns(*W.shape[:3], 5) @ values(W).repeat_interleave(W.shape[1] // 2, 1).mT)).sum(2),
    ),
}
DIFFERENTIABLE = (
    "A @ X",
    "A.mT @ Y, one per batch entry and head",
    "to_dense",
    "entropy",
    "received",
    "pooled",
    "mean_distance",
)
DIFFERENTIABLE += (
    "effective_keys",
    "distance_spread",
    "mass_within",
    "mass_on",
    "inner of two heads",
    "value_weighted",
)
# One case of each kind, for the expensive tests.
VARIED = (
    "default scale",
    "causal, more rows",
    "causal, square",
    "one key",
    "shared heads, causal",
    "window",
    "window, causal, padding, softcap",
    "mask",
    "padding, causal, shared heads",
    "padded rows",
    "bias and mask, causal",
    "sinks, softcap, bias, mask",
)
UNITS = {torch.float32: 84, torch.float64: 84, torch.bfloat16: 1}  # of the epsilon


def assert_close(ours: Tensor, exact: Tensor, dtype: torch.dtype, slack: float = 1) -> None:
    assert ours.shape == exact.shape
    assert not ours.isnan().any()
    tolerance = UNITS[dtype] * torch.finfo(dtype).eps * slack
    torch.testing.assert_close(ours.double(), exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", CASES)
def test_equals_the_dense_matrix(name: str, operation: str):
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    # A float32 logit of size x has an error of x·6e-8, which is the relative error of its weight.
    slack = 10 if name == "large logits" else 1
    assert_close(ask(case.matrix()), oracle(case.dense()[0]), torch.float32, slack)


SWEPT = ("entropy", "received", "topk", "pooled", "pooled by max", "pooled part", "mean_distance", "maximum")
SWEPT += ("effective_keys", "distance_spread", "mass_within, offset")


@pytest.mark.parametrize("operation", SWEPT)
@pytest.mark.parametrize("name", VARIED)
def test_torch_computes_what_the_native_pass_refuses(name: str, operation: str, monkeypatch):
    monkeypatch.setattr("clearhead.kernels.second_pass.refuses", lambda problem, expected: "patched by the test")
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    assert_close(ask(case.matrix()), oracle(case.dense()[0]), torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", VARIED)
def test_equals_the_dense_matrix_in_float64_and_in_many_blocks(name: str, operation: str, small_blocks: None):
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    assert_close(ask(case.matrix(torch.float64)), oracle(case.dense(torch.float64)[0]), torch.float64)


OPERANDS = ("@", "value_weighted", "gradient_times")


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if not any(word in name for word in OPERANDS)])
@pytest.mark.parametrize("name", ["padding, causal, shared heads", "sinks, softcap, bias, mask"])
def test_bfloat16_costs_at_most_one_rounding(name: str, operation: str):
    """For bfloat16 tensors the result is that of their exact values: in float32, or rounded once at the end."""
    case, (ask, oracle) = CASES[name], OPERATIONS[operation]
    answer, exact = ask(case.matrix(torch.bfloat16)), oracle(case.dense(torch.bfloat16)[0])
    entries = answer.dtype == torch.bfloat16
    assert_close(answer, exact, answer.dtype)
    assert entries == (operation in ENTRIES)


ENTRIES = (
    "to_dense",
    "diagonal",
    "diagonal below",
    "diagonal above",
    "rows",
    "heads",
    "one head, a row",
    "mean of heads, a part",
)


def test_bfloat16_products_are_rounded_once():
    case = CASES["shared heads, causal"]
    W, x = case.dense(torch.bfloat16)[0], columns(29, 3).bfloat16()
    answer = case.matrix(torch.bfloat16) @ x
    assert answer.dtype == torch.bfloat16
    torch.testing.assert_close(answer.double(), W @ x.double(), rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("operation", DIFFERENTIABLE)
@pytest.mark.parametrize("name", VARIED)
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
        if operation == "entropy":  # entr's derivative at 0 is infinite; that of a masked weight is 0
            return -(W * torch.where(W > 0, W, 1.0).log()).sum(-1)
        return oracle(W)

    ours = gradients(lambda tensors: ask(AttentionMatrix(**tensors, **case.options())))
    for mine, theirs in zip(ours, gradients(exact), strict=True):
        if theirs is None:
            assert mine is None or mine.abs().max() < 1e-10
            continue
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_topk_returns_the_keys_of_its_weights(name: str):
    case = CASES[name]
    values, keys = case.matrix(torch.float64).topk(min(4, case.keys))
    actual = case.dense(torch.float64)[0].gather(-1, keys)
    torch.testing.assert_close(values, actual, rtol=1e-10, atol=1e-12)
    assert keys.dtype == torch.int64


@pytest.mark.parametrize("name", CASES)
def test_visible_counts_the_keys_that_may_be_attended(name: str, small_blocks: None):
    logits = CASES[name].dense(torch.float64)[1]
    assert torch.equal(CASES[name].matrix().visible(), (logits > -torch.inf).sum(-1))


def test_a_given_lse_is_used():
    matrix = CASES["sinks, causal, shared heads"].matrix(torch.float64)
    again = AttentionMatrix(
        **CASES["sinks, causal, shared heads"].tensors(torch.float64),
        **CASES["sinks, causal, shared heads"].options(),
        lse=matrix.lse,
    )
    assert torch.equal(again.entropy(), matrix.entropy())
    assert again.lse is matrix.lse


def test_an_operand_of_a_wider_dtype_gives_a_wider_result():
    matrix = Case().matrix(torch.float32)
    assert (matrix @ columns(31, 3)).dtype == torch.float64
    assert (matrix.mT @ columns(23, 3).bfloat16()).dtype == torch.float32
    assert matrix.shape == (B, 6, 23, 31)
    assert matrix.mT.shape == (B, 6, 31, 23)
    assert matrix.mT.mT is matrix


def test_an_lse_that_is_part_of_a_graph_carries_its_gradient():
    case = CASES["sinks, causal, shared heads"]

    def gradients(lse_given: bool) -> tuple[Tensor, ...]:
        tensors = case.tensors(torch.float64)
        learns = [tensors[name].requires_grad_() for name in ("query", "key", "sinks")]
        matrix = AttentionMatrix(**tensors, **case.options())
        if lse_given:
            matrix = AttentionMatrix(**tensors, **case.options(), lse=matrix.lse)
        x = columns(case.keys, 3)
        return torch.autograd.grad((matrix @ x).cos().sum() + matrix.entropy().cos().sum(), learns)

    for ours, exact in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 1, 1), (2, 3, 1, 1)])
def test_a_fully_masked_head_contributes_nothing(shape: tuple[int, ...], sinks: bool) -> None:
    query, key, columns = torch.randn(2, 3, 11, 5), torch.randn(2, 3, 7, 5), torch.randn(2, 3, 11, 2)
    allow = torch.arange(2).view(2, 1, 1, 1).expand(shape) == 0
    A = AttentionMatrix(query, key, value=key, allow=allow, sinks=torch.randn(3) if sinks else None)
    torch.testing.assert_close(A.mT @ columns, A.to_dense().mT @ columns)
