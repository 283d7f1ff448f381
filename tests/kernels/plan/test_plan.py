"""The plan matches what runs: `explain` compared with a recorder, for every kind of problem, dtype, option and mode."""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

import clearhead
from clearhead import kernels, masks
from clearhead.kernels import fast_path, plan
from clearhead.kernels.measured import costs, tasks
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.native.library import library, reads_tensors
from clearhead.kernels.portable import blockwise
from clearhead.kernels.portable.reference import Reference
from clearhead.kernels.portable.torch_sdpa import TorchSdpa, flash_runs
from clearhead.kernels.problem import Problem
from clearhead.kernels.registry import KERNELS
from clearhead.multihead import fused

from ..cases import CASES
from ..targets import TARGETS, needs_native

# A kernel or None, what is requested besides the output, how fast torch is, whether a mask of any size stays a rule.
SITUATIONS = [
    (None, "out", "as it is", False),
    (None, "lse", "as it is", True),
    (None, "gradients", "as it is", False),
    (None, "matrix", "torch never", True),
    (None, "out", "torch always", False),
    (None, "lse", "torch always", False),
    (None, "gradients", "torch always", True),
    (None, "gradients", "torch if large", False),
    (None, "out", "torch if large", True),
    ("native", "gradients", "torch always", True),
    ("torch", "lse", "torch never", False),
    ("reference", "out", "as it is", True),
]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
ROUTES = {
    "clearhead.multihead.chunked_rule.run": plan.CHUNKED_RULE,
    "clearhead.multihead.operators.custom_op.run": plan.CUSTOM_OPERATOR,
    "clearhead.multihead.operators.decomposition.run": plan.DECOMPOSED,
    "clearhead.multihead.operators.double_backward.run": plan.TORCH_STEPS,
    "clearhead.multihead.operators.torchscript.record": plan.TORCHSCRIPT,
}


@dataclass
class Run:
    """The paths, kernels and targets that a call entered, in order."""

    paths: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    targets: set[str] = field(default_factory=set)

    @property
    def path(self) -> str:
        return self.paths[0] if self.paths else plan.KERNEL

    def forget(self) -> None:
        self.paths.clear()
        self.kernels.clear()
        self.targets.clear()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Record the paths, kernels and targets that are entered from here on."""
    record = Run()

    def watch(place: Any, name: str, note: Any) -> None:
        own = getattr(place, name)

        def call(*args: Any, **options: Any) -> Any:
            note(args)
            return own(*args, **options)

        monkeypatch.setattr(place, name, call)

    def native(path: str | None, args: tuple[Any, ...]) -> None:
        if path:
            record.paths.append(path)
        record.kernels.add("native")
        record.targets.add(next(row.name for row in kernels.targets() if row.index == args[0]))

    if library is not None:
        watch(library, "fast_forward", lambda args: native(plan.FAST_PATH, args))
        watch(library, "forward", lambda args: native(None, args))
    for function in ("_flash", "_sdpa"):
        watch(fast_path, function, lambda _: (record.paths.append(plan.TORCH_FUNCTION), record.kernels.add("torch")))
    for kernel in (TorchSdpa, Reference):
        watch(kernel, "forward", lambda args, name=kernel.name: record.kernels.add(name))
    for route, path in ROUTES.items():
        module, name = route.rsplit(".", 1)
        watch(sys.modules[module], name, lambda args, path=path: record.paths.append(path))
    if reads_tensors:  # the library calls torch's functions itself
        library.register_attention(fast_path._flash, torch.empty_like)
    yield record
    monkeypatch.undo()
    if reads_tensors:
        library.register_attention(fast_path._flash, torch.empty_like)


@pytest.fixture
def speed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the costs of the machine: its CPU's own, or torch always faster, never, or from some size on."""
    if request.param != "as it is":
        call, work = {"torch always": (2e3, 0.0), "torch never": (0.0, 0.0), "torch if large": (0.0, 1e3)}[
            request.param
        ]
        known = costs.Known(tasks.Cost(call, 0.0, work), tasks.Cost(0.0, 0.0, 0.0), "the test says so")
        monkeypatch.setattr(costs, "of", lambda task, dtype: known)
    plan.forget()
    yield request.param
    monkeypatch.undo()
    plan.forget()


def call_of(problem: Problem) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of `attention` for a problem: a mask tensor if that suffices, else a rule."""
    attention = problem.attention
    tensor = attention.allow if attention.bias is None else attention.bias
    both = attention.allow is not None and attention.bias is not None
    masked = not (attention.is_causal or attention.reach == (None, None)) or attention.alibi is not None or both
    options: dict[str, Any] = {"softcap": attention.softcap, "sinks": attention.sinks, "dropout_p": attention.dropout_p}
    options |= {
        "scale": attention.scale if attention.head_scale is None else attention.scale * attention.head_scale,
        "enable_gqa": problem.group != 1,
        "is_causal": attention.is_causal,
    }
    if not (masked or (attention.is_causal and tensor is not None)):
        return (problem.query, problem.key, problem.value, tensor), options
    low, high = attention.reach
    parts: list[masks.Mask] = []
    if high is not None:
        parts.append(masks.causal(high))
    if low is not None:
        parts.append(~masks.causal(low - 1))
    if attention.alibi is not None:
        parts.append(masks.alibi(attention.alibi))
    if attention.allow is not None:
        full = (*problem.query.shape[:3], problem.key.shape[2])
        parts.append(masks.from_dense(attention.allow.broadcast_to(full)))
    if not parts or attention.bias is not None:  # a dense bias cannot be a rule here
        return (problem.query, problem.key, problem.value, attention.bias), options | {"is_causal": False}
    rule = parts[0]
    for part in parts[1:]:
        rule = rule & part
    return (problem.query, problem.key, problem.value, rule), options | {"is_causal": False}


def agree(run: Run, args: tuple[Any, ...], options: dict[str, Any]) -> kernels.Plan:
    """Call `explain`, then `attention`; assert that what ran is what was planned."""
    run.forget()
    planned = kernels.explain(*args, **options)
    assert (run.paths, run.kernels) == ([], set()), "explain computed something"
    clearhead.attention(*args, **options)
    assert run.path == planned.path, planned
    assert run.kernels == ({planned.kernel} if planned.kernel else set()) or planned.path == plan.CUSTOM_OPERATOR
    assert run.targets == ({planned.target} if planned.target else set()), planned
    assert planned.reason
    return planned


@pytest.mark.pairwise(name=CASES)
@pytest.mark.parametrize(("kernel", "output", "speed", "large_rules"), SITUATIONS, indirect=["speed"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_the_plan_matches_what_runs(
    name: str, dtype: torch.dtype, kernel: str | None, output: str, speed: str, large_rules: bool, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if kernel is not None and KERNELS[kernel].unavailable():
        pytest.skip("the native library was not built on this machine")
    if large_rules:
        monkeypatch.setattr("clearhead.kernels.calls.prepare.RULE_ENTRIES", 0)
    args, options = call_of(CASES[name].problem(dtype))
    if output == "gradients":
        args = (*(x.clone().requires_grad_() for x in args[:3]), args[3])
    options |= {"kernel": kernel, "return_lse": output == "lse", "return_matrix": output == "matrix"}
    agree(run, args, options)


@needs_native
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_forced_target_runs(target: str, dtype: torch.dtype, run: Run) -> None:
    args = torch.randn(3, 1, 2, 37, 8).to(dtype).unbind()
    with kernels.target(target):
        planned = agree(run, args, {})
        (row,) = [row for row in kernels.targets() if row.name == target]
        assert planned.target == (target if dtype in row.dtypes else None)
        agree(run, args, {"softcap": 3.0})
        agree(run, args, {"attn_mask": masks.causal() & masks.document(torch.arange(37) // 5)})


@pytest.fixture
def unforced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Remove a target that the environment forces, because a forced target keeps calls from torch."""
    monkeypatch.delenv(cpu_targets.VARIABLE, raising=False)
    cpu_targets.forget()
    yield
    monkeypatch.undo()
    cpu_targets.forget()


def three(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    make = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=make).to(dtype) for _ in range(3))


@needs_native
@pytest.mark.usefixtures("unforced")
@pytest.mark.parametrize(
    ("options", "grads", "path"),
    [
        ({}, False, plan.FAST_PATH),
        ({}, True, plan.TORCH_FUNCTION),
        ({"is_causal": True}, True, plan.TORCH_FUNCTION),
        ({"is_causal": True, "scale": -1.0}, True, plan.FAST_PATH),
        ({"return_lse": True}, True, plan.KERNEL),
        ({"attn_mask": torch.ones(1, 1, dtype=torch.bool)}, True, plan.TORCH_FUNCTION),
        ({"attn_mask": torch.full((2, 1, 1, 1), 2.0)}, True, plan.TORCH_FUNCTION),
        (
            {"attn_mask": torch.full((3, 1, 1), 2.0)},
            True,
            plan.FAST_PATH,
        ),  # torch has no fused kernel for a mask with three axes
        ({"attn_mask": torch.zeros(1, 1, dtype=torch.bool)}, True, plan.FAST_PATH),  # NaN in torch
        ({"attn_mask": torch.full((1, 1), -torch.inf)}, True, plan.FAST_PATH),
        ({"attn_mask": torch.ones(1, 1, dtype=torch.bool)}, False, plan.FAST_PATH),
        ({"kernel": "native"}, True, plan.KERNEL),
    ],
    ids=str,
)
def test_plans_of_one_query_and_one_key(options: dict[str, Any], grads: bool, path: str, run: Run) -> None:
    args = tuple(x.requires_grad_(grads) for x in three(2, 3, 1, 5))
    planned = agree(run, args, options)
    assert planned.path == path
    assert planned.kernel == ("torch" if path == plan.TORCH_FUNCTION else "native")


def test_meta_tensors_take_the_custom_operator(run: Run) -> None:
    assert agree(run, tuple(x.to("meta") for x in three(1, 2, 5, 7)), {}).path == plan.CUSTOM_OPERATOR


def within(transform: Any, *args: Tensor, **options: Any) -> kernels.Plan:
    """Return the plan of a call inside a transform; the caller compares it with what ran."""
    plans: list[kernels.Plan] = []

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        plans.append(kernels.explain(query, key, value, **options))
        return clearhead.attention(query, key, value, **options)

    transform(call)(*args)
    return plans[0]


def jvp(call: Any) -> Any:
    return lambda *args: torch.func.jvp(call, args, args)


def export(call: Any) -> Any:
    class Module(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return call(query, key, value)

    return lambda *args: torch.export.export(Module(), args, strict=False)


def onnx(call: Any) -> Any:
    class Module(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            return call(query, key, value)

    return lambda *args: torch.onnx.export(Module(), args, io.BytesIO(), dynamo=False, opset_version=17)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("transform", "path"),
    [
        (torch.func.vmap, plan.CUSTOM_OPERATOR),
        (export, plan.CUSTOM_OPERATOR),
        (jvp, plan.TORCH_STEPS),
        (lambda call: lambda *args: torch.jit.trace(call, args, check_trace=False), plan.TORCHSCRIPT),
    ],
    ids=["vmap", "export", "jvp", "jit.trace"],
)
def test_plans_inside_transforms_and_tracers(transform: Any, path: str, run: Run) -> None:
    planned = within(transform, *three(2, 3, 5, 7))
    assert planned.path == path == run.path


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage")
def test_a_nested_call_has_the_plan_of_its_sequences(run: Run) -> None:
    parts = [three(2, length, 7) for length in (3, 5)]
    nested = tuple(torch.nested.nested_tensor([part[i] for part in parts]) for i in range(3))
    planned = kernels.explain(*nested)
    clearhead.attention(*nested)
    assert planned.path == plan.NESTED
    assert run.kernels == {planned.kernel}
    assert run.targets == ({planned.target} if planned.target else set())


@needs_native
@pytest.mark.skipif(not flash_runs(torch.bfloat16), reason="torch's attention of bfloat16 raises here")
def test_torch_computes_bfloat16_if_only_it_uses_the_cpus_matrix_instructions(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated on any CPU: "amx-bf16" is among its features, and no target needs it."""
    monkeypatch.delenv(cpu_targets.VARIABLE, raising=False)
    monkeypatch.setattr(costs, "cpu_features", lambda: frozenset({"amx-bf16"}))
    monkeypatch.setattr(cpu_targets, "_TARGETS", [row for row in kernels.targets() if "amx-bf16" not in row.needs])
    plan.forget()
    try:
        args = three(1, 2, 37, 8, dtype=torch.bfloat16)
        planned = agree(run, args, {})
        assert (planned.path, planned.kernel) == (plan.TORCH_FUNCTION, "torch")
        assert "amx-bf16" in planned.reason
        assert agree(run, args, {"return_lse": True}).kernel == "torch"
        assert agree(run, args, {"attn_mask": torch.rand(37, 37) < 0.5}).kernel == "torch"
        assert agree(run, tuple(x.requires_grad_() for x in args), {}).kernel == "torch"
        assert agree(run, three(1, 2, 37, 8), {}).kernel == "native"
        declares = kernels.Target(0, "new", 16, ("amx-bf16",), (torch.bfloat16,), (), False, True)
        assert costs._torch_has_more(declares, torch.bfloat16) is None
    finally:
        monkeypatch.undo()
        plan.forget()


@pytest.mark.parametrize(("vendor", "expected"), [("intel", "converts"), ("amd", "pairs"), ("other", "pairs")])
def test_bfloat16_is_not_multiplied_in_pairs_on_intel(
    monkeypatch: pytest.MonkeyPatch, vendor: str, expected: str
) -> None:
    """vdpbf16ps runs at half the rate of a multiply-add there. float32 is the same on both targets."""
    monkeypatch.delenv(cpu_targets.VARIABLE, raising=False)
    dtypes = (torch.float32, torch.bfloat16)
    rows = [
        kernels.Target(index, name, 16, needs, dtypes, (), False, True)
        for index, (name, needs) in enumerate([("pairs", ("avx512f", "avx512bf16")), ("converts", ("avx512f",))])
    ]
    monkeypatch.setattr(cpu_targets, "_TARGETS", rows)
    monkeypatch.setattr(cpu_targets, "cpu_features", lambda: frozenset({"avx512bf16", vendor}))
    plan.forget()
    try:
        assert cpu_targets.current(torch.bfloat16)[0].name == expected
        assert cpu_targets.current(torch.float32)[0].name == "pairs"
        with kernels.target("pairs"):
            assert cpu_targets.current(torch.bfloat16)[0].name == "pairs"
    finally:
        monkeypatch.undo()
        plan.forget()


def test_the_recorded_functions_exist() -> None:
    """A renamed function would not be recorded, and the tests above would compare nothing."""
    for route in ROUTES:
        module, name = route.rsplit(".", 1)
        assert callable(getattr(sys.modules[module], name))
    assert fused.plan is plan.plan
    assert blockwise.forward
    assert tasks.TASKS
