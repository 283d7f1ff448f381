"""Exported programs: ONNX by both of torch's exporters, and .pt2 files, which load if clearhead is imported."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

import clearhead
import fresh
from clearhead import masks

B, H, H_KV, L, S, D, E = 2, 6, 3, 5, 7, 11, 13


class Attend(torch.nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v):
        return clearhead.attention(q, k, v, **{"enable_gqa": True} | self.options)


def inputs(length=L, keys=S):
    make = torch.Generator().manual_seed(length)
    shapes = [(B, H, length, D), (B, H_KV, keys, D), (B, H_KV, keys, E)]
    return tuple(torch.randn(shape, generator=make) for shape in shapes)


def allowed():
    allow = torch.rand(B, 1, L, S, generator=torch.Generator().manual_seed(1)) < 0.6
    allow[0, :, 2] = False  # a query that may attend nothing
    return allow


def added():
    make = torch.Generator().manual_seed(2)
    return torch.randn(H, L, S, generator=make).masked_fill(~allowed()[0], -torch.inf)


# The options of a call.
CASES = {
    "plain": lambda: {},
    "scale": lambda: {"scale": 0.7},
    "causal": lambda: {"is_causal": True},
    "bool mask": lambda: {"attn_mask": allowed()},
    "whole rows": lambda: {"attn_mask": torch.tensor([True, False, True, True, False])[:, None].expand(L, 1)},
    "float mask": lambda: {"attn_mask": added()},
    "window": lambda: {"attn_mask": masks.causal(-1) & masks.sliding_window(3)},
    "rule": lambda: {"attn_mask": masks.prefix(2) | masks.sliding_window(2)},
    "lse": lambda: {"attn_mask": allowed(), "scale": 0.4, "return_lse": True},
    "soft cap": lambda: {"softcap": 2.0, "is_causal": True},
    "sinks": lambda: {"sinks": torch.linspace(-1, 1, H), "attn_mask": allowed()},
    "slopes": lambda: {"attn_mask": masks.causal() & masks.alibi(torch.linspace(0.1, 1, H))},
}
DECOMPOSED = ("soft cap", "sinks", "slopes")


class AllCases(torch.nn.Module):
    """One model with all cases, because an export takes seconds."""

    def __init__(self):
        super().__init__()
        self.cases = torch.nn.ModuleList(Attend(**options()) for options in CASES.values())
        self.layer = clearhead.MultiheadAttention(6, 3, batch_first=True)
        self.shared = clearhead.MultiheadAttention(6, 3, num_kv_heads=1, add_zero_attn=True)

    def forward(self, q, k, v, x, padding):
        out = [case(q, k, v) for case in self.cases]
        out.append(self.layer(x, x, x, key_padding_mask=padding))
        out.append(self.layer(x, x, x, key_padding_mask=padding, need_weights=False)[0])
        out.append(self.shared(x, x, x, need_weights=False)[0])
        return out


def exported(module, args, path, dynamo, opset=None, **options):
    """Export a module to ONNX, check the model and return it."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed, which torch.onnx.export needs")
    with warnings.catch_warnings():  # torch's older exporter warns of its deprecation, and of each shape check
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), args, path, dynamo=dynamo, opset_version=opset, verbose=False, **options)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return model


def run(model, args):
    from onnx.reference import ReferenceEvaluator

    names = [value.name for value in model.graph.input]
    with np.errstate(all="ignore"):  # an empty row is NaN in an intermediate result
        actual = ReferenceEvaluator(model).run(None, {name: x.numpy() for name, x in zip(names, args, strict=True)})
    return [torch.from_numpy(np.asarray(x)) for x in actual]


def agree(actual, expected):
    torch.testing.assert_close(actual, [x for x in expected if x is not None], atol=1e-5, rtol=1e-5)


EXPORTERS = {"dynamo, opset 18": (True, 18), "dynamo, opset 23": (True, 23), "tracing": (False, 17)}
EACH_EXPORTER = [pytest.param("dynamo, opset 18", marks=pytest.mark.stress), "dynamo, opset 23", "tracing"]
ORDERS = ["torch, clearhead", pytest.param("clearhead, torch", marks=pytest.mark.stress)]


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["dynamo, opset 23", pytest.param("tracing", marks=pytest.mark.stress)])
def test_every_option_of_the_function_and_the_module_is_exported(exporter, tmp_path):
    x, padding = torch.randn(2, 5, 6), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    args, module = (*inputs(), x, padding), AllCases().eval()
    model = exported(module, args, tmp_path / "model.onnx", *EXPORTERS[exporter])
    expected = [y for x in module(*args) for y in (x if isinstance(x, tuple) else (x,))]
    agree(run(model, args), expected)
    nodes = [node.op_type for node in model.graph.node]
    fused = len(CASES) - len(DECOMPOSED) + 2  # the module twice: with weights it is decomposed too
    assert nodes.count("Attention") == (fused if exporter == "dynamo, opset 23" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("exporter", EACH_EXPORTER)
def test_the_module_by_itself_is_exported(exporter, tmp_path):
    layer = clearhead.MultiheadAttention(12, 3, batch_first=True).eval()
    x = torch.randn(2, 5, 12)
    model = exported(layer, (x, x, x), tmp_path / "model.onnx", *EXPORTERS[exporter])
    agree(run(model, (x, x, x)), layer(x, x, x))


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_an_exported_model_works_for_other_lengths(dynamo, tmp_path):
    args, longer = inputs(), inputs(7, 11)
    if dynamo:
        options = {"dynamic_shapes": ({2: "L"}, {2: "S"}, {2: "S"})}
    else:
        options = {"input_names": list("qkv"), "dynamic_axes": {name: {2: f"n_{name}"} for name in "qkv"}}
    model = exported(Attend(is_causal=True), args, tmp_path / "model.onnx", dynamo, 18, **options)
    agree(run(model, longer), [Attend(is_causal=True)(*longer)])


@pytest.mark.filterwarnings("ignore:`isinstance:FutureWarning")  # torch's own code
def test_run_decompositions_removes_our_operator():
    args = inputs()
    program = torch.export.export(Attend(is_causal=True), args)
    table = torch._decomp.get_decompositions([torch.ops.clearhead.attend])
    program = program.run_decompositions(table)
    assert not any("clearhead" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(*args), Attend(is_causal=True)(*args))


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_a_saved_program_loads_once_clearhead_is_imported(order, tmp_path):
    args = inputs()
    torch.export.save(torch.export.export(Attend(softcap=3.0), args), tmp_path / "program.pt2")
    torch.save((args, Attend(softcap=3.0)(*args)), tmp_path / "wanted.pt")
    script = f"""
import {order}
args, wanted = torch.load("wanted.pt")
torch.testing.assert_close(torch.export.load("program.pt2").module()(*args), wanted)
assert not hasattr(torch.ops.clearhead, "nothing_of_this_name")
"""
    if order.startswith("torch"):
        done = fresh.run(script, folder=tmp_path)
    else:
        done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_naming_the_operators_imports_nothing(order):
    script = f"""
import sys
import {order}
assert "clearhead.kernels" not in sys.modules
assert not any(type(finder).__module__.startswith("clearhead") for finder in sys.meta_path)
assert torch.ops.clearhead.attend.default
assert "clearhead.kernels" in sys.modules
"""
    if order.startswith("torch"):
        done = fresh.run(script)
    else:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_clearhead_alone_does_not_import_torch():
    script = "import sys, clearhead; assert 'torch' not in sys.modules; import torch; assert torch.__spec__.loader"
    assert subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent).returncode == 0
