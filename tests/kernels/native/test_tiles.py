"""Products on tile registers, of bfloat16 and of numbers split into bfloat16, on Intel AMX and on its emulation."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from clearhead import attention, kernels
from clearhead.kernels import Problem, Wanted
from clearhead.kernels.second_pass import run_with, statistics

from ..implementations import runner
from ..oracle import assert_as_exact, exact, gradients, plain
from ..rounding import assert_within, logit_unit
from ..targets import needs_native, on

pytestmark = needs_native
TILES = ("amx", "amxmodel")
ON_TILES = [on(target) for target in kernels.targets() if target.name in TILES]
EPS = torch.finfo(torch.bfloat16).eps
# Units of rounding.logit_unit, three to four times the worst case measured here; a column sums over up to 300 queries.
LSE, OF_ROW, OF_COLUMN = 10.0, 6.0, 24.0


def inside_nan(shape: tuple[int, ...], make: torch.Generator) -> torch.Tensor:
    """Return random numbers at an odd address inside a buffer of NaN, so that reads past an end are visible."""
    batch, heads, rows, columns = shape
    wide = torch.full((batch, heads, rows + 2, columns + 5), torch.nan, dtype=torch.bfloat16)
    inner = wide[:, :, 1:-1, 3:-2]
    inner.copy_(torch.randn(shape, generator=make))
    return inner


def assert_close_to_exact(problem: Problem, units: float = 0.8) -> None:
    result = kernels.run(problem, kernel="native")
    out, lse = exact(problem)
    assert (result.out.double() - out).abs().max() <= units * EPS * out.abs().max()
    assert_within(result.lse, lse, logit_unit(problem), LSE)


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("width", [1, 31, 32, 33, 64, 65, 97, 128, 131])
@pytest.mark.parametrize("keys", [1, 31, 33, 64, 65, 97, 131])
def test_nothing_past_the_last_key_or_column_is_read(target: str, width: int, keys: int) -> None:
    make = torch.Generator().manual_seed(width * keys)
    query = inside_nan((1, 2, 37, width), make)
    key, value = inside_nan((1, 2, keys, width), make), inside_nan((1, 2, keys, width), make)
    with kernels.target(target):
        assert_close_to_exact(Problem(query, key, value, width**-0.5))
        assert_close_to_exact(Problem(query, key, value[..., : width // 2 + 1], width**-0.5, is_causal=True))


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("width", [1, 33, 64, 97])
@pytest.mark.parametrize(("length", "keys"), [(9, 31), (37, 97), (67, 64), (131, 33)])
@pytest.mark.parametrize("is_causal", [False, True])
def test_gradients_read_nothing_past_the_last_query_key_or_column(
    target: str, width: int, length: int, keys: int, is_causal: bool
) -> None:
    make = torch.Generator().manual_seed(width * keys)
    query, value = inside_nan((1, 4, length, width), make), inside_nan((1, 2, keys, width // 2 + 1), make)
    problem = Problem(query, inside_nan((1, 2, keys, width), make), value, width**-0.5, is_causal=is_causal)
    truth, yardstick = gradients(exact, problem, "both"), gradients(plain, problem, "both")
    with kernels.target(target):
        for name, grad in gradients(runner("native"), problem, "both").items():
            assert_as_exact(grad, truth[name].double(), yardstick[name], torch.bfloat16)


@pytest.mark.parametrize("target", ON_TILES)
def test_a_nonfinite_value_does_not_change_the_gradients_of_other_blocks(target: str) -> None:
    make = torch.Generator().manual_seed(4)
    query, key, value = (torch.randn(1, 1, 37, 9, generator=make).bfloat16() for _ in range(3))
    for strange in (torch.nan, torch.inf):
        spoilt = value.clone()
        spoilt[0, 0, 35] = strange
        with kernels.target(target):
            grads = gradients(runner("native"), Problem(query, key, spoilt, 0.3, is_causal=True), "out")
        assert grads["query"][0, 0, :32].isfinite().all()
        assert grads["query"][0, 0, 35:].isnan().all()
        assert grads["value"].isfinite().all()


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize(
    "steps", [(0, 20), (20, 0), (0, 20, 40), (9, 0, 0, 30), (0, 5, 10, 15, 20, 25), (-40, 0, 1, 90)]
)
def test_a_maximum_that_grows_in_any_block_rescales_the_sums(target: str, steps: tuple[int, ...]) -> None:
    """The weights of a block are multiplied with the values two blocks later, when the offset may have grown."""
    make = torch.Generator().manual_seed(3)
    keys = 32 * len(steps)
    query, key, value = (torch.randn(1, 1, rows, 64, generator=make).bfloat16() for rows in (33, keys, keys))
    bias = torch.tensor(steps, dtype=torch.float32).repeat_interleave(32).expand(33, keys)
    only_some = torch.arange(33)[:, None] % 3 == 0  # of the queries
    with kernels.target(target):
        assert_close_to_exact(Problem(query, key, value, 0.125, bias=bias.clone()[None, None]))
        assert_close_to_exact(Problem(query, key, value, 0.125, bias=torch.where(only_some, bias, 0)[None, None]))


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("keys", [64, 128, 191, 321])
def test_pipelined_blocks_equal_blocks_one_at_a_time(target: str, keys: int, is_causal: bool) -> None:
    """A mask that allows everything disables the pipelining. Here the maximum grows in most blocks."""
    make = torch.Generator().manual_seed(keys)
    query, key, value = (torch.randn(1, 1, rows, 64, generator=make) for rows in (keys, keys, keys))
    key *= 1 + 2 * (torch.arange(keys) // 32)[:, None]
    parts = [x.bfloat16() for x in (query, key, value)]
    everything = torch.ones(1, 1, keys, keys, dtype=torch.bool)
    with kernels.target(target):
        problem = Problem(*parts, 0.125, is_causal=is_causal)
        assert_close_to_exact(problem)
        pipelined, entropies = run_with(problem, Wanted(entropy=True, received=True))
        alone, others = run_with(problem.change(allow=everything), Wanted(entropy=True, received=True))
    assert torch.equal(pipelined.out, alone.out)
    assert torch.equal(pipelined.lse, alone.lse)
    assert torch.equal(entropies.entropy, others.entropy)
    assert torch.equal(entropies.received, others.received)


@pytest.mark.slow
@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("threads", [2, 7])
def test_every_number_of_threads_gives_the_same_bits(target: str, threads: int) -> None:
    make = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, heads, 419, 41, generator=make).bfloat16() for heads in (6, 2, 2))
    problem = Problem(query, key, value, 0.2, is_causal=True)

    def answer(count: int) -> list[torch.Tensor]:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            result = kernels.run(problem, kernel="native")
            return [result.out, result.lse, *gradients(runner("native"), problem, "both").values()]
        finally:
            torch.set_num_threads(before)

    with kernels.target(target):
        alone, together = answer(1), answer(threads)
    assert all(map(torch.equal, alone, together))


@pytest.mark.parametrize("target", ON_TILES)
def test_a_nonfinite_query_or_key_changes_only_the_rows_that_attend_it(target: str) -> None:
    make = torch.Generator().manual_seed(1)
    query, key, value = (torch.randn(1, 1, 67, 9, generator=make).bfloat16() for _ in range(3))
    with kernels.target(target):
        clean = kernels.run(Problem(query, key, value, 0.3, is_causal=True), kernel="native").out
        for strange in (torch.nan, torch.inf, -torch.inf):
            spoilt_query, spoilt_key = query.clone(), key.clone()
            spoilt_query[0, 0, 17], spoilt_key[0, 0, 40] = strange, strange
            out = kernels.run(Problem(spoilt_query, spoilt_key, value, 0.3, is_causal=True), kernel="native").out
            before = [row for row in range(40) if row != 17]
            assert torch.equal(out[0, 0, before], clean[0, 0, before])
            assert out[0, 0, 17].isnan().all()
        query[0, 0, 5] = torch.nan
        assert kernels.run(Problem(query, key, value, 0.3), kernel="native").out[0, 0, 5].isnan().all()


@pytest.mark.parametrize("target", ON_TILES)
def test_the_output_is_the_same_with_and_without_the_lse(target: str) -> None:
    query = torch.randn(1, 3, 131, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    with kernels.target(target):
        out, _ = attention(query, query, query, return_lse=True)
        assert torch.equal(attention(query, query, query), out)


@pytest.mark.skipif(len(ON_TILES) < 2, reason="the assembler that built the library does not support tile instructions")
def test_the_emulation_equals_the_processor() -> None:
    if not next(t for t in kernels.targets() if t.name == "amx").runs_here:
        pytest.skip("this CPU has no tile registers")
    query = torch.randn(1, 3, 131, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    problem = Problem(query, query, query, 0.125)
    answers = []
    for name in TILES:
        with kernels.target(name):
            answers.append(kernels.run(problem, kernel="native"))
    assert_within(answers[0].lse, answers[1].lse, logit_unit(problem), LSE)
    torch.testing.assert_close(answers[0].out, answers[1].out, atol=0, rtol=2 * EPS)


# dtype and torch's matmul precision -> the largest error of an output of values about 1, in the dtype's epsilon.
# Two pieces have 16 bits, so float32 loses 2^-16 at "high" and 2^-8 at "medium"; averaging reduces the error.
PIECES = [
    pytest.param(torch.float16, "highest", 0.8, id="float16"),
    pytest.param(torch.float32, "high", 2**-15 / 2**-23, id="high"),
    pytest.param(torch.float32, "medium", 2**-6 / 2**-23, id="medium"),
]


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def inside_large(shape: tuple[int, ...], dtype: torch.dtype, make: torch.Generator) -> torch.Tensor:
    """Return random numbers inside a buffer of large finite ones, for which the tile kernel does not fall back."""
    batch, heads, rows, columns = shape
    wide = torch.full((batch, heads, rows + 2, columns + 5), 3e4, dtype=dtype)
    inner = wide[:, :, 1:-1, 3:-2]
    inner.copy_(torch.randn(shape, generator=make))
    return inner


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize(("dtype", "precision", "units"), PIECES)
@pytest.mark.parametrize(("width", "keys"), [(1, 31), (33, 65), (64, 131), (97, 64), (128, 97), (131, 33)])
def test_split_numbers_have_the_accuracy_of_their_precision(
    target: str, dtype: torch.dtype, precision: str, units: float, width: int, keys: int
) -> None:
    make = torch.Generator().manual_seed(width * keys)
    query, key = inside_large((1, 4, 37, width), dtype, make), inside_large((1, 2, keys, width), dtype, make)
    value = inside_large((1, 2, keys, width // 2 + 1), dtype, make)
    for causal in (False, True):
        problem = Problem(query, key, value, width**-0.5, is_causal=causal)
        truth, lse = exact(problem)
        with kernels.target(target), matmul_precision(precision):
            result = kernels.run(problem, kernel="native")
        bound = units * torch.finfo(dtype).eps * max(1.0, truth.abs().max().item())
        assert (result.out.double() - truth).abs().max() <= bound
        assert_within(result.lse, lse, max(bound, LSE * logit_unit(problem)), 1.0)


@pytest.mark.parametrize("target", ON_TILES)
def test_torchs_matmul_precision_controls_float32_products(target: str) -> None:
    make = torch.Generator().manual_seed(5)
    query, key, value = (torch.randn(1, 2, 137, 64, generator=make) for _ in range(3))
    problem, errors = Problem(query, key, value, 0.125), {}
    for precision in ("highest", "high", "medium"):
        with kernels.target(target), matmul_precision(precision):
            out = kernels.run(problem, kernel="native").out
            assert torch.equal(attention(query, key, value), out)
            reason = kernels.explain(query, key, value).reason
        errors[precision] = (out.double() - exact(problem)[0]).abs().max().item()
        assert ("bfloat16" in reason) is (precision != "highest")
    one, two, three = 2**-7, 2**-15, 8 * torch.finfo(torch.float32).eps  # pieces of 8 bits each
    assert errors["highest"] < three < errors["high"] < two < errors["medium"] < one


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize(("dtype", "precision", "units"), PIECES)
@pytest.mark.parametrize("strange", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("spoilt", ["query", "key", "value"])
def test_nonfinite_numbers_have_the_same_effect_as_in_the_vector_kernel(
    target: str, dtype: torch.dtype, precision: str, units: float, strange: float, spoilt: str
) -> None:
    make = torch.Generator().manual_seed(6)
    tensors = {name: torch.randn(1, 1, 67, 9, generator=make).to(dtype) for name in ("query", "key", "value")}
    tensors[spoilt][0, 0, 40, 3] = strange
    problem = Problem(**tensors, scale=0.3, is_causal=True)
    with kernels.target("generic"):
        in_vectors = kernels.run(problem, kernel="native").out
    with kernels.target(target), matmul_precision(precision):
        out = kernels.run(problem, kernel="native").out
    tolerance = units * torch.finfo(dtype).eps * 4
    torch.testing.assert_close(out, in_vectors, atol=tolerance, rtol=tolerance, equal_nan=True)


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("size", [1e-36, 1e-42, 1e36])
def test_float32_too_small_or_large_to_split_keeps_its_precision(target: str, size: float) -> None:
    make = torch.Generator().manual_seed(7)
    query, key, value = (torch.randn(1, 1, 67, 9, generator=make) for _ in range(3))
    problem = Problem(query, key, value * size, 0.3)
    with kernels.target(target), matmul_precision("high"):
        out = kernels.run(problem, kernel="native").out
    truth = exact(problem)[0]
    float32 = torch.finfo(torch.float32)
    assert (out.double() - truth).abs().max() <= 64 * float32.eps * (truth.abs().max() + float32.tiny)


@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize(("dtype", "precision", "units"), PIECES)
def test_split_numbers_give_the_same_bits_on_any_number_of_threads(
    target: str, dtype: torch.dtype, precision: str, units: float
) -> None:
    del units
    make = torch.Generator().manual_seed(8)
    query, key, value = (torch.randn(1, heads, 307, 41, generator=make).to(dtype) for heads in (6, 2, 2))
    query[0, 3, 200] = torch.inf  # one tile of queries goes to the vector kernel
    answers, before = [], torch.get_num_threads()
    with kernels.target(target), matmul_precision(precision):
        for threads in (1, 3):
            torch.set_num_threads(threads)
            try:
                answers.append(kernels.run(Problem(query, key, value, 0.2), kernel="native").out)
            finally:
                torch.set_num_threads(before)
    assert torch.equal(answers[0].nan_to_num(7), answers[1].nan_to_num(7))


def dense_masks(length: int, keys: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return dense masks and biases; one mask starts at an odd byte inside a buffer with the opposite values."""
    make = torch.Generator().manual_seed(9)
    allow = torch.rand(2, 1, length, keys, generator=make) < 0.6
    allow[:, :, 5] = False
    behind = allow & (torch.arange(keys) >= min(40, keys // 2))
    inner = ~torch.zeros(2, 1, length + 2, keys + 3, dtype=torch.bool)[:, :, 1:-1, 1:-2]
    inner.copy_(allow)
    bias = torch.randn(1, 4, length, keys, generator=make)
    return {
        "rows": {"allow": inner},
        "none of the first keys": {"allow": behind},
        "strided columns": {"allow": allow.mT.contiguous().mT},
        "triangle": {"allow": torch.ones(1, 1, length, keys, dtype=torch.bool).tril(keys // 2)},
        "padding": {"allow": allow[:, :, :1]},
        "bias": {"bias": bias},
        "bias of bfloat16": {"bias": bias.bfloat16()},
        "bias of float16": {"bias": bias.half()},
        "bias of strided columns": {"bias": bias.mT.contiguous().mT},
        "bias of -inf": {"bias": bias.masked_fill(~allow[:1], -torch.inf)},
        "mask and bias": {"bias": bias.bfloat16(), "allow": behind},
    }


@pytest.mark.pairwise
@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", dense_masks(9, 9))
@pytest.mark.parametrize(("length", "keys"), [(37, 131), (64, 64), (9, 97)])
def test_dense_masks_and_biases_equal_the_reference(
    target: str, dtype: torch.dtype, kind: str, length: int, keys: int
) -> None:
    make = torch.Generator().manual_seed(10)
    query = torch.randn(2, 4, length, 33, generator=make).to(dtype)
    key, value = (torch.randn(2, 2, keys, 33, generator=make).to(dtype) for _ in range(2))
    for causal in (False, True):
        problem = Problem(query, key, value, 0.2, is_causal=causal, **dense_masks(length, keys)[kind])
        truth, lse = exact(problem)
        with kernels.target(target):
            result = kernels.run(problem, kernel="native")
        bound = torch.finfo(dtype).eps * max(1.0, truth.abs().max().item())
        assert (result.out.double() - truth).abs().max() <= bound
        assert_within(result.lse, lse, logit_unit(problem), LSE)


def weights_of(problem: Problem) -> torch.Tensor:
    keys = problem.key.shape[2]
    eye = torch.eye(keys, dtype=torch.float64).expand(*problem.key.shape[:2], keys, keys)
    return exact(problem.change(query=problem.query.double(), key=problem.key.double(), value=eye))[0]


@pytest.mark.pairwise
@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("top", [1, 3, 8, 9])
@pytest.mark.parametrize("keys", [5, 97, 1097])  # windows of 512 keys
@pytest.mark.parametrize("masked", [False, True])
def test_statistics_of_rows_equal_the_reference(target: str, top: int, keys: int, masked: bool) -> None:
    make = torch.Generator().manual_seed(keys)
    query, key = (
        torch.randn(1, 2, 37, 33, generator=make).bfloat16(),
        torch.randn(1, 1, keys, 33, generator=make).bfloat16(),
    )
    allow = torch.rand(1, 1, 37, keys, generator=make) < 0.3 if masked else None
    problem = Problem(query, key, key, 0.3, allow=allow)
    weights = weights_of(problem)
    if masked:
        assert allow is not None
        weights = weights * allow
    with kernels.target(target):
        result, actual = run_with(problem, Wanted(entropy=True, maximum=True, mass=True, topk=top))
        assert torch.equal(result.out, kernels.run(problem, kernel="native").out)
    few = min(top, keys)
    best, unit = weights.topk(few)[0], logit_unit(problem)
    assert_within(actual.best[..., :few], best, unit, OF_ROW, "best")
    assert_within(weights.gather(-1, actual.best_keys[..., :few]), best, unit, OF_ROW, "best keys")
    assert_within(actual.entropy, torch.special.entr(weights).sum(-1), unit, OF_ROW, "entropy")
    assert_within(actual.maximum, weights.amax(-1), unit, OF_ROW, "maximum")
    assert_within(actual.mass, weights.sum(-1), unit, OF_ROW, "mass")


@pytest.mark.parametrize("target", ON_TILES)
def test_of_equal_logits_the_lower_keys_come_first(target: str) -> None:
    key = torch.zeros(1, 1, 1300, 8).bfloat16()
    key[:, :, [700, 900, 1100, 1200], 0] = 1  # some in the same window, some in different ones
    with kernels.target(target):
        actual = run_with(Problem(torch.ones(1, 1, 9, 8).bfloat16(), key, key, 1.0), Wanted(topk=8))[1]
    assert actual.best_keys.unique(dim=2).tolist() == [[[[700, 900, 1100, 1200, 0, 1, 2, 3]]]]


@pytest.mark.pairwise
@pytest.mark.parametrize("target", ON_TILES)
@pytest.mark.parametrize("width", [1, 33, 64])
@pytest.mark.parametrize(("length", "keys"), [(37, 31), (131, 257), (300, 97)])
@pytest.mark.parametrize("scale", [0.3, -0.3, 0.0])
def test_column_sums_equal_the_reference(target: str, width: int, length: int, keys: int, scale: float) -> None:
    make = torch.Generator().manual_seed(width * keys)
    query, key = inside_nan((1, 4, length, width), make), inside_nan((1, 2, keys, width), make)
    for options in ({}, {"is_causal": True}, {"reach": (-20, 7)}):
        problem = Problem(query, key, key, scale, **options)
        weights = weights_of(problem)
        with kernels.target(target):
            lse = kernels.run(problem, kernel="native").lse
            received = statistics(problem, lse, Wanted(received=True)).received
        assert_within(received, weights.sum(-2), logit_unit(problem), OF_COLUMN)
