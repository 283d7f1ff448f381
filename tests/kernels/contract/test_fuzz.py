"""Ten thousand random problems with combined shapes, strides, dtypes, masks and options: native and reference.

And ten thousand more of bfloat16 on tile registers. Every fifth is also differentiated. `make stress` runs them all. A
failure names the seed that reproduces it.
"""

import random

import pytest
import torch
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import Problem

from ..implementations import runner
from ..oracle import assert_as_exact, exact, gradients, plain
from ..targets import HERE, needs_native

CASES = 10_000
ON_TILES = [name for name in HERE if name in ("amx", "amxmodel")]
needs_tiles = pytest.mark.skipif(not ON_TILES, reason="no target with tile registers or their emulation runs here")


def restride(pick: random.Random, tensor: Tensor) -> Tensor:
    """Return the same numbers, at random with other strides."""
    layout = pick.randrange(4)
    if layout == 1:
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == 2:
        return tensor.mT.contiguous().mT
    if layout == 3:
        wide = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 3), torch.nan)
        wide[..., 1:-2] = tensor
        return wide[..., 1:-2]
    return tensor


def random_problem(seed: int, of_dtype: torch.dtype | None = None) -> Problem:
    pick, make = random.Random(seed), torch.Generator().manual_seed(seed)  # noqa: S311
    batch, kv_heads, group = pick.randint(1, 2), pick.randint(1, 2), pick.randint(1, 3)
    length, keys = (pick.choice([pick.randint(0, 5), pick.randint(1, 200)]) for _ in range(2))
    width, value_width = pick.randint(1, 70), pick.randint(1, 70)
    heads = kv_heads * group

    dtype = of_dtype or pick.choice([torch.float32, torch.float64, torch.bfloat16, torch.float16])

    def tensor(*shape: int) -> Tensor:
        return restride(pick, torch.randn(shape, generator=make).to(dtype))

    def broadcast() -> tuple[int, ...]:
        return tuple(pick.choice([1, size]) for size in (batch, heads, length, keys))[pick.randrange(3) :]

    return Problem(
        query=tensor(batch, heads, length, width) * pick.choice([1.0, 1.0, 30.0]),
        key=tensor(batch, kv_heads, keys, width),
        value=tensor(batch, kv_heads, keys, value_width),
        scale=pick.choice([width**-0.5, 0.1, -0.1]),
        is_causal=pick.random() < 0.4,
        allow=torch.rand(broadcast(), generator=make) < 0.6 if pick.random() < 0.4 else None,
        bias=torch.randn(broadcast(), generator=make).to(dtype) if pick.random() < 0.3 else None,
        softcap=pick.choice([None, None, None, 3.0]),
        sinks=torch.randn(heads, generator=make).to(dtype) if pick.random() < 0.2 else None,
        reach=pick.choice([(None, None), (None, None), (-pick.randint(0, 50), None), (-9, pick.randint(0, 50))]),
    )


@pytest.mark.stress
@needs_native
@pytest.mark.parametrize("chunk", range(20))
def test_random_problems(chunk: int) -> None:
    each = CASES // 20
    for seed in range(chunk * each, (chunk + 1) * each):
        check(seed)


@needs_native
def test_a_few_random_problems() -> None:
    for seed in range(CASES, CASES + 60):
        check(seed)


@pytest.mark.stress
@needs_tiles
@pytest.mark.parametrize("chunk", range(20))
def test_random_problems_on_tiles(chunk: int) -> None:
    """On 1, 2 and 5 threads, which is more than a small machine has cores."""
    each, before = CASES // 20, torch.get_num_threads()
    try:
        for seed in range(chunk * each, (chunk + 1) * each):
            torch.set_num_threads((1, 2, 5)[seed % 3])
            check(seed, torch.bfloat16, ON_TILES)
    finally:
        torch.set_num_threads(before)


@needs_tiles
def test_a_few_random_problems_on_tiles() -> None:
    for seed in range(CASES, CASES + 30):
        check(seed, torch.bfloat16, ON_TILES)


def check(seed: int, of_dtype: torch.dtype | None = None, targets: list[str] = HERE) -> None:
    problem, target = random_problem(seed, of_dtype), targets[seed % len(targets)]
    note = f"seed {seed}, {problem.query.dtype}, target {target}"
    with kernels.target(target):
        result = kernels.run(problem, kernel="native")
        out, lse = exact(problem)
        # For 16 bits only the output is rounded: sums and weights are float32. For float64 everything is float64.
        dtype = problem.query.dtype
        units = 1e-8 if dtype == torch.float64 else 1
        size = max(1.0, out.abs().max().item() if out.numel() else 0.0)
        assert_near(result.out, out, (2e-4 * units + torch.finfo(dtype).eps) * size, f"{note}: out")
        assert_near(result.lse, lse, (2e-4 + 1e-5 * magnitude(lse)) * units + left_out(problem, target), f"{note}: lse")
        if seed % 5 == 0 and (dtype in (torch.float32, torch.float64) or of_dtype):
            actual, expected = (gradients(compute, problem, "both") for compute in (runner("native"), exact))
            yardstick = gradients(plain, problem, "both") if of_dtype else {}
            for name, grad in actual.items():
                if of_dtype:
                    # P and dS are rounded: the error is that of plain torch, or four units where torch gives NaN. δ is
                    # computed from the rounded output, and the gradient of a shared bias sums its errors.
                    least = 4 * torch.finfo(dtype).eps
                    assert_as_exact(grad, expected[name].double(), yardstick[name], dtype, floor=least)
                else:
                    assert_near(
                        grad,
                        expected[name],
                        (1e-4 + 1e-3 * magnitude(expected[name])) * units,
                        f"{note}: gradient of {name}",
                    )


def left_out(problem: Problem, target: str) -> float:
    """The largest error of a logit of float16 on tiles, whose numbers are two pieces of bfloat16.

    A second piece is at most 2⁻⁹ of its number, and the product of two second pieces is left out. Seed 8734 has logits
    of 234 before a soft cap of 3, and an lse that is 2.6e-4 off.
    """
    if problem.query.dtype != torch.float16 or target not in ON_TILES:
        return 0.0
    query, key = problem.query.double().abs(), problem.key.double().abs()
    key = key.repeat_interleave(query.shape[1] // max(key.shape[1], 1), 1)
    return 2**-18 * problem.attention.scale * magnitude(query @ key.mT)


def magnitude(tensor: Tensor) -> float:
    """Return the largest finite magnitude."""
    finite = tensor[tensor.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def assert_near(got: Tensor, truth: Tensor, tolerance: float, note: str) -> None:
    same = (got.double() == truth.double()) | ((got.double() - truth.double()).abs() <= tolerance)
    worst = (got.double() - truth.double()).abs().max().item() if got.numel() else 0.0
    assert bool(same.all()), f"{note} is off by {worst:.2e}, more than {tolerance:.2e}"
