"""Guarantees of the native kernel alone: CPU targets, threads, odd sizes, and no crash on any number."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from clearhead import kernels
from clearhead.errors import KernelError, OptionError
from clearhead.kernels import Problem
from clearhead.kernels.native.cpu_targets import VARIABLE, current, forget, is_forced
from clearhead.kernels.native.library import cpu_features, cpu_supports, library

from ..rounding import assert_within, largest_terms, logit_unit
from ..targets import HERE, TARGETS, needs_native

pytestmark = needs_native


def native(problem: Problem) -> kernels.Result:
    return kernels.run(problem, kernel="native")


def test_a_target_is_forced_within_its_block() -> None:
    before = current()
    for name in HERE:
        with kernels.target(name):
            assert current()[0].name == name
            assert "kernels.target" in current()[1]
    assert current() == before


def test_the_environment_forces_a_target(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        monkeypatch.setenv(VARIABLE, "generic")
        forget()
        assert current()[0].name == "generic"
        assert VARIABLE in current()[1]
        monkeypatch.setenv(VARIABLE, "abacus")
        forget()
        with pytest.raises(OptionError, match=f"no kernel target 'abacus', forced by {VARIABLE}. .* Unset {VARIABLE}"):
            current()
    finally:
        monkeypatch.undo()
        forget()


def test_an_unknown_target_is_refused() -> None:
    with (
        pytest.raises(OptionError, match=r"forced by kernels.target. This CPU can run: .*generic"),
        kernels.target("abacus"),
    ):
        pass


def test_a_target_this_machine_cannot_run_is_refused() -> None:
    missing = [target.name for target in kernels.targets() if not target.runs_here]
    if not missing:
        pytest.skip("this machine can run every compiled target")
    with (
        pytest.raises(KernelError, match=r"cannot run kernel target .*, forced by kernels.target. This CPU can run"),
        kernels.target(missing[0]),
    ):
        pass


def test_targets_for_tests_are_never_chosen() -> None:
    if is_forced():
        pytest.skip("the environment forces a target")
    for_tests = [row for row in kernels.targets() if row.for_tests]
    if not for_tests:
        pytest.skip("no target for tests was compiled for this architecture")
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        assert current(dtype)[0] not in for_tests


def test_an_unknown_cpu_feature_is_not_supported() -> None:
    known = ",".join(cpu_features())
    assert cpu_supports(known)
    assert cpu_supports("")
    for unknown in ("quantum", f"{known},quantum", f"quantum,{known}", "avx", "avx22", "avx512bf166", ","):
        assert not cpu_supports(unknown), unknown


def test_every_target_lists_the_features_it_needs() -> None:
    for row in kernels.targets():
        assert row.runs_here == cpu_supports(",".join(row.needs))
        assert row.lanes > 0
        assert row.dtypes
        assert set(row.flushes) <= set(row.dtypes)
    assert [row.name for row in kernels.targets()] == [row["name"] for row in library.targets()]


def test_available_names_the_target_in_use() -> None:
    (native_row,) = [row for row in kernels.available() if row.kernel == "native"]
    assert native_row.available
    assert current()[0].name in native_row.reason


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_thread_pool_is_shared_with_torch() -> None:
    mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "gomp" in line}
    assert len(mapped) == 1, "two OpenMP runtimes fight for the same cores"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nm") is None, reason="binutils is not installed")
def test_the_build_check_finds_a_weak_symbol(tmp_path: Path) -> None:
    cmake, compiler = shutil.which("cmake", path=str(Path(sys.executable).parent)), shutil.which("g++")
    if cmake is None or compiler is None:
        pytest.skip("cmake or g++ is not installed")
    script = Path(__file__).parents[3] / "native" / "no_weak.cmake"
    for name, source, fails in (("weak", "inline int f() { return 1; } int (*g)() = f;", True),
                                ("plain", "static int f() { return 1; } int (*g)() = f;", False)):  # fmt: skip
        (tmp_path / f"{name}.cpp").write_text(source)
        subprocess.run([compiler, "-c", f"{name}.cpp", "-o", f"{name}.o"], cwd=tmp_path, check=True)
        done = subprocess.run(
            [cmake, "-DNM=nm", f"-DOBJECTS={tmp_path / name}.o", "-P", script], capture_output=True, text=True
        )
        assert (done.returncode != 0) == fails
        assert ("weak symbols" in done.stderr) == fails


# Lone heads are split among threads from 96 rows on, and the rows of one key head count together.
@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "length"),
    [(1, 1, 419), (3, 3, 419), (11, 11, 419), (1, 1, 97), (1, 1, 131), (7, 1, 37), (13, 1, 31)],
)
def test_every_number_of_threads_gives_the_same_bits(heads: int, kv_heads: int, length: int, threads: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, each, length, 40, generator=make, requires_grad=True) for each in (heads, kv_heads, kv_heads)
    )
    upstream = torch.randn(1, heads, length, 40, generator=make)
    problem = Problem(query, key, value, scale=0.2, is_causal=True)

    def answers(count: int) -> list[torch.Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            result = native(problem)
            return [result.out, result.lse, *torch.autograd.grad(result.out, (query, key, value), upstream)]
        finally:
            torch.set_num_threads(before)

    assert all(torch.equal(alone, many) for alone, many in zip(answers(1), answers(threads), strict=True))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("length", "width"), [(11, 67), (37, 96), (37, 31)])
def test_keys_whose_columns_are_apart_give_the_bits_of_their_copy(target: str, length: int, width: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, value = torch.randn(1, 2, length, width, generator=make), torch.randn(1, 2, 149, 7, generator=make)
    key = torch.full((1, 2, width, 157), torch.nan)[..., 3:152].mT  # NaN beside each column
    key.copy_(torch.randn(1, 2, 149, width, generator=make))
    tensors = [x.bfloat16() for x in (query, key, value)]
    assert tensors[1].stride(-1) > 1
    with kernels.target(target):
        apart, whole = (native(Problem(tensors[0], k, tensors[2], 0.2)) for k in (tensors[1], tensors[1].contiguous()))
    assert torch.equal(apart.out, whole.out)


@pytest.mark.parametrize(
    "shape", [(2, 3, 307, 67), (1, 3, 307, 67), (2, 1, 307, 67), (307, 67), (1, 67), (307, 1)], ids=str
)
def test_a_learned_bias_gets_the_same_bits_from_every_number_of_threads(shape: tuple[int, ...]) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, rows, 8, generator=make) for rows in (307, 67, 67))
    learns = [torch.randn(size, generator=make, requires_grad=True) for size in (shape, (3,), (3,))]
    problem = Problem(query, key, value, 0.3, bias=learns[0], sinks=learns[1], alibi=learns[2])

    def answers(count: int) -> tuple[torch.Tensor, ...]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return torch.autograd.grad(native(problem).out.square().sum(), learns)
        finally:
            torch.set_num_threads(before)

    alone = answers(1)
    assert all(
        torch.equal(ours, many) for ours, many in zip(alone * 4, [g for _ in range(4) for g in answers(5)], strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
@settings(max_examples=15, derandomize=True)
def test_any_shape_and_stride(target: str, data: st.DataObject) -> None:
    draw = data.draw
    batch, kv_heads, group = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    length, keys = draw(st.integers(1, 300)), draw(st.integers(1, 300))
    width, value_width = draw(st.integers(1, 80)), draw(st.integers(1, 80))
    causal, interleaved = draw(st.booleans()), draw(st.booleans())
    make = torch.Generator().manual_seed(draw(st.integers(0, 1000)))

    def tensor(heads: int, rows: int, columns: int) -> torch.Tensor:
        if interleaved:
            return torch.randn(batch, rows, heads, columns, generator=make).transpose(1, 2)
        return torch.randn(batch, heads, rows, columns, generator=make)

    query = tensor(kv_heads * group, length, width).requires_grad_()
    key, value = tensor(kv_heads, keys, width).requires_grad_(), tensor(kv_heads, keys, value_width).requires_grad_()
    scale = draw(st.sampled_from([width**-0.5, -0.3, 0.0]))
    with kernels.target(target):
        result = native(Problem(query, key, value, scale, is_causal=causal))
        out, lse = reference.attention(query, key, value, scale=scale, is_causal=causal)
        unit = logit_unit(Problem(query.detach(), key.detach(), value.detach(), scale))
        assert_within(result.out.detach(), out.detach(), unit, 4.0, "out")
        assert_within(result.lse.detach(), lse.detach(), unit, 4.0, "lse")
        upstream = torch.randn(out.shape, generator=make)
        got, truth = (torch.autograd.grad(o, (query, key, value), upstream.to(o.dtype)) for o in (result.out, out))
    terms = largest_terms(query, key, value, lse, out, upstream, scale, causal)
    for ours, theirs, size in zip(got, truth, terms, strict=True):
        assert (ours.double() - theirs).abs().max() <= 4 * unit * size  # twice the worst case measured here, 1.73


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf, 1e-42, 3e38])
def test_nan_and_extreme_numbers_stay_in_their_rows(target: str, strange: float) -> None:
    """A query row with such numbers may change only its own output."""
    make = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 2, 45, 9, generator=make) for _ in range(3))
    with kernels.target(target):
        clean = native(Problem(query, key, value, scale=0.3))
        query[0, 1, 17] = strange
        spoilt = native(Problem(query.requires_grad_(), key, value, scale=0.3))
        spoilt.out.sum().backward()
    others = torch.ones(1, 2, 45, dtype=torch.bool)
    others[0, 1, 17] = False
    assert torch.equal(clean.out[others], spoilt.out[others])
    assert query.grad is not None
    assert query.grad[others].isfinite().all()
    if strange != strange:
        assert spoilt.out[0, 1, 17].isnan().all(), "NaN in must be NaN out"


def test_a_nan_value_reaches_the_rows_that_attend_it() -> None:
    query = torch.zeros(1, 1, 5, 3)
    value = torch.ones(1, 1, 5, 2)
    value[0, 0, 3, 1] = torch.nan
    out = native(Problem(query, query, value, scale=1.0, is_causal=True)).out
    assert out[0, 0, 3:, 1].isnan().all()
    assert out[0, 0, :, 0].isfinite().all()


@pytest.mark.parametrize("length", [1, 7], ids=["decode", "tile"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_all_16_bit_numbers_pass_unchanged(dtype: torch.dtype, length: int) -> None:
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(dtype)
    query, key = torch.zeros(1, 1, length, 1, dtype=dtype), torch.zeros(1, 1, 1, 1, dtype=dtype)
    out = native(Problem(query, key, every.view(1, 1, 1, -1), scale=1.0)).out
    for row in out[0, 0]:
        torch.testing.assert_close(row, every, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("length", [1, 7], ids=["decode", "tile"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_to_16_bits_is_to_nearest_even(dtype: torch.dtype, length: int) -> None:
    """Two keys of equal weight: the output is the exact mean of two numbers, rounded once."""
    make = torch.Generator().manual_seed(3)
    value = torch.randint(0, 1 << 16, (2, 1 << 16), generator=make, dtype=torch.int32).to(torch.uint16).view(dtype)
    value = value.nan_to_num(1.0, 2.0, 3.0)
    value = torch.where(value.abs() > 1e30, 1.0, value) if dtype == torch.bfloat16 else value
    # Neighbours, whose means are ties, and small float16 numbers, whose means are denormal.
    value[1, : 1 << 15] = (value[0, : 1 << 15].view(torch.int16) ^ 1).view(dtype)
    query, key = torch.zeros(1, 1, length, 1, dtype=dtype), torch.zeros(1, 1, 2, 1, dtype=dtype)
    out = native(Problem(query, key, value[None, None], scale=1.0)).out
    assert torch.equal(out[0, 0, -1], value.double().mean(0).to(torch.float32).to(dtype))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_inside_vmap_another_kernel_is_chosen() -> None:
    stack = torch.randn(3, 1, 2, 5, 7, generator=torch.Generator().manual_seed(4))

    def attend(query: torch.Tensor) -> torch.Tensor:
        return kernels.run(Problem(query, query, query, scale=0.3)).out

    together = torch.func.vmap(attend)(stack)
    torch.testing.assert_close(together, torch.stack([attend(query) for query in stack]))


def test_no_test_is_parametrized_by_the_targets_of_this_cpu() -> None:
    """HERE is for loops: as a parameter it would make the number of tests depend on the CPU."""
    folder = Path(__file__).parents[2]
    by_cpu = [
        path.name
        for path in folder.rglob("test_*.py")
        if "node_modules" not in path.parts and re.search(r"parametrize\([^)]*\b(HERE|runs_here)\b", path.read_text())
    ]
    assert by_cpu == []
