"""The Triton kernels: a sample of the contract and of the second pass, on the chosen device (the interpreter on a CPU).

`make stress` runs the whole contract (test_contract.py), everything here, and compiles the kernels for two GPUs.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.errors import KernelError
from clearhead.kernels import Cells, Problem
from clearhead.kernels.plan import choose
from clearhead.kernels.registry import KERNELS
from clearhead.kernels.second_pass import Statistics, Wanted, run_with, statistics
from clearhead.kernels.triton.blocks import TABLE, candidates
from devices import missing, needs_triton, placed

from ..cases import CASES
from ..contract import test_contract, test_second_pass
from ..contract.test_second_pass import IN_FORWARD, edges, everything, extras
from ..implementations import runner
from ..oracle import exact_weights, gradients
from .interpreter import combine_slices

pytestmark = [pytest.mark.skipif(missing() is not None, reason=str(missing())), needs_triton]
NAMES = ("entropy", "maximum", "squares", "mass", "distance", "spread", "received", "best", "map")

# Between them every term of a logit, and every gradient.
SAMPLE = [
    "scale per head, grouped, causal, softcap, bias",
    "scale per head, sinks, alibi, dropout",
    "window, mask, bias",
]


@pytest.fixture(autouse=True)
def own_reduction(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Sort fast in the interpreter; gives the reduction that was replaced."""
    reduce_ops = pytest.importorskip("triton.runtime.interpreter").ReduceOps
    own = reduce_ops.generic_reduce
    monkeypatch.setattr(reduce_ops, "generic_reduce", combine_slices)
    return own


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_of_the_contract(name: str) -> None:
    test_contract.test_gradients("triton", name, "both")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_sample_in_16_bits(dtype: torch.dtype) -> None:
    test_contract.test_forward("triton", "sinks causal grouped", dtype)


def on_triton(problem: Problem, lse: torch.Tensor, wanted: Wanted) -> Statistics:
    """Compute statistics with the Triton kernels; return them on the CPU."""
    moved = placed(problem)
    actual = statistics(moved, lse.to(moved.query.device), wanted, kernel="triton")
    return Statistics(**{name: getattr(actual, name).cpu() for name in (*NAMES, "best_keys")})


def check(problem: Problem, cells: Cells, tolerance: float = 2e-5) -> None:
    W, lse = exact_weights(problem)
    actual, exact = on_triton(problem, lse, everything(cells)), test_second_pass.expected(W, cells)
    for name in NAMES:
        torch.testing.assert_close(
            getattr(actual, name).double(), getattr(exact, name), rtol=tolerance, atol=tolerance,
            msg=lambda m, n=name: f"{n}: {m}",
        )  # fmt: skip
    torch.testing.assert_close(W.gather(-1, actual.best_keys), exact.best, rtol=tolerance, atol=tolerance)
    assert (actual.best_keys.sort(-1)[0].diff(dim=-1) > 0).all(), "a key is listed twice in a row"


@pytest.mark.slow
def test_a_sample_of_the_second_pass() -> None:
    problem = test_second_pass.problem(23, 79, **extras(23, 79)["all"])
    check(problem, Cells(edges(0, 23, 2), edges(0, 79, 1)))


@pytest.mark.stress
@pytest.mark.parametrize("kind", extras(2, 2))
def test_the_second_pass_equals_the_dense_weights(kind: str) -> None:
    problem = test_second_pass.problem(23, 79, **extras(23, 79)[kind])
    check(problem, Cells(edges(0, 23, 2), edges(0, 79, 3)))


@pytest.mark.stress
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", extras(2, 2))
def test_the_second_pass_over_several_tiles(kind: str, dtype: torch.dtype) -> None:
    for length, keys in ((1, 131), (139, 163)):
        problem = test_second_pass.problem(length, keys, dtype, **extras(length, keys)[kind])
        check(problem, Cells(edges(0, length, 5), edges(0, keys, 7)))


@pytest.mark.stress
def test_maxima_of_cells_and_cells_finer_than_the_matrix() -> None:
    problem = test_second_pass.problem(13, 17, is_causal=True)
    check(problem, Cells(edges(0, 13, 5), edges(0, 17, 7), by_maximum=True))
    check(problem, Cells(edges(0, 13, 19), edges(0, 17, 23)))


@pytest.mark.stress
def test_two_runs_of_queries_add_up(monkeypatch) -> None:
    monkeypatch.setattr("clearhead.kernels.second_pass.CHUNK", 1)
    problem = test_second_pass.problem(1031, 7, heads=2)
    check(problem, Cells(edges(0, 1031, 3), edges(0, 7, 2)), tolerance=1e-4)


@pytest.mark.stress
def test_a_row_on_one_distant_key_has_no_spread() -> None:
    bias = torch.full((1, 1, 1, 5003), -torch.inf)
    bias[..., 4999] = 0
    q, k = torch.ones(1, 1, 3, 3), torch.ones(1, 1, 5003, 3)
    wanted = Wanted(spread=True, distance=True, entropy=True)
    actual = on_triton(Problem(q, k, k, 1.0, bias=bias), torch.full((1, 1, 3), 3.0), wanted)
    assert actual.spread.abs().max() == 0
    assert actual.entropy.abs().max() < 1e-6
    torch.testing.assert_close(actual.distance[0, 0], 4999.0 - torch.arange(3))


@pytest.mark.stress
def test_of_equal_weights_the_lower_keys_come_first() -> None:
    q, k = torch.zeros(1, 1, 3, 5), torch.zeros(1, 1, 300, 5)
    for top in (1, 7, 64):
        actual = on_triton(Problem(q, k, k, 1.0), torch.full((1, 1, 3), 300.0).log(), Wanted(topk=top))
        assert actual.best_keys[0, 0].tolist() == [list(range(top))] * 3


@pytest.mark.stress
def test_combining_slices_sorts_as_the_interpreter_does(
    monkeypatch: pytest.MonkeyPatch, own_reduction: Callable[..., Any]
) -> None:
    problem = test_second_pass.problem(3, 7, heads=2)
    lse = exact_weights(problem)[1]
    fast = on_triton(problem, lse, Wanted(topk=3))
    monkeypatch.setattr("triton.runtime.interpreter.ReduceOps.generic_reduce", own_reduction)
    slow = on_triton(problem, lse, Wanted(topk=3))
    assert torch.equal(fast.best_keys, slow.best_keys)
    assert torch.equal(fast.best, slow.best)


@pytest.mark.stress
@pytest.mark.parametrize("kind", extras(2, 2))
def test_the_forward_pass_computes_statistics_of_its_rows(kind: str) -> None:
    problem = test_second_pass.problem(23, 79, **extras(23, 79)[kind])
    result, actual = run_with(placed(problem), IN_FORWARD, kernel="triton")
    W, lse = exact_weights(problem)
    torch.testing.assert_close(result.lse.cpu().double(), lse, rtol=1e-6, atol=1e-6)
    exact = test_second_pass.expected(W, Cells(edges(0, 23, 1), edges(0, 79, 1)))
    for name in ("entropy", "maximum", "squares", "mass", "best"):
        got = getattr(actual, name).cpu().double()
        torch.testing.assert_close(got, getattr(exact, name), rtol=2e-5, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.stress
@pytest.mark.parametrize("scale", [0.0, -0.5, 90.0])
def test_statistics_of_the_forward_pass_at_other_scales(scale: float) -> None:
    problem = test_second_pass.problem(29, 137, is_causal=True).change(scale=scale)
    _, actual = run_with(placed(problem), IN_FORWARD, kernel="triton")
    exact = test_second_pass.expected(exact_weights(problem)[0], Cells(edges(0, 29, 1), edges(0, 137, 1)))
    for name in ("entropy", "maximum", "squares", "mass", "best"):
        torch.testing.assert_close(getattr(actual, name).cpu().double(), getattr(exact, name), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_bias_of_minus_a_billion_keeps_its_gradients() -> None:
    """There, logits - lse has no digits left in float32, so the lse is kept in float64 and split in two."""
    problem = CASES["full"].problem()
    bias = torch.full((37, 1), -1e9).where(torch.arange(37)[:, None] % 3 == 0, 0.0)
    problem = problem.change(bias=bias)
    ours = gradients(runner("triton"), problem, "out")
    blocked = gradients(runner("torch"), problem, "out")
    rows = torch.arange(37) % 3 == 0
    torch.testing.assert_close(ours["value"], blocked["value"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours["query"][:, :, ~rows], blocked["query"][:, :, ~rows], rtol=1e-5, atol=1e-5)


def test_the_interpreter_is_never_chosen_and_refusals_have_reasons() -> None:
    problem, triton = CASES["full"].problem(), KERNELS["triton"]
    if problem.query.device == placed(problem).query.device:
        chosen, refused = choose(problem.change(softcap=1.0))
        assert chosen.name != "triton"
        assert chosen.name == "native" or "interpreter" in refused["triton"]
    assert "head_dim may be at most 256" in triton.refuses(placed(problem.change(query=torch.zeros(1, 1, 2, 257))))
    assert "float64" in triton.refuses(CASES["full"].problem(torch.float64))
    assert "size 0" in triton.refuses(placed(CASES["no key"].problem()))
    with pytest.raises(KernelError, match="float64"):
        kernels.run(CASES["full"].problem(torch.float64), kernel="triton")


def test_every_width_has_blocks_and_every_top_k_fits_a_tile() -> None:
    for (kind, most), blocks in TABLE.items():
        assert candidates(kind, most) == blocks
        for block in blocks:
            assert block.rows >= 16
            assert block.keys >= (64 if kind == "second pass" else 16)  # second_pass.MOST_BEST


def test_a_launch_leaves_no_rounding_to_a_default_of_triton_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.10 no longer joins a product and a sum to one rounding where nobody says so."""
    launch, given = pytest.importorskip("clearhead.kernels.triton.launch"), {}

    class Tuned:
        def __getitem__(self, _grid: object) -> "Tuned":
            return self

        def __call__(self, *_arguments: object, **options: object) -> None:
            given.update(options)

    monkeypatch.setattr(launch, "is_interpreted", lambda: False)
    monkeypatch.setattr(launch, "_on", lambda _device: nullcontext())
    monkeypatch.setattr(launch, "tuned", lambda *_: Tuned())
    launch.Call(CASES["full"].problem()).launch("forward", None, lambda _: 1)
    assert given["enable_fp_fusion"] is True


SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}  # bytes per block of threads


@pytest.mark.stress
@pytest.mark.parametrize(
    "name", ["bfloat16, 64, causal", "float16, 128, all terms", "float32, 64, all terms", "bfloat16, 256, all terms"]
)
def test_every_kernel_compiles_for_gpus_that_are_not_present(name: str, tmp_path: Path) -> None:
    script = Path(__file__).with_name("triton_builds.py")
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path / "cache")}
    # All candidates take twenty minutes to compile in float32: build the smallest blocks first, then what time allows.
    command = [sys.executable, script, name, "--seconds", "60"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert "Warning" not in run.stderr, "an option of the compiler is left to a default that changes"
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    assert {row["sm"] for row in rows} == {80, 90}
    names = {"forward", "backward_query", "backward_key", "row_statistics", "column_sums", "map_cells"}
    assert {row["kernel"] for row in rows} >= names
    for row in rows:
        assert row["shared"] <= SHARED_MEMORY[row["sm"]], row
