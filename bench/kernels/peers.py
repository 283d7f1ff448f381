"""Other libraries, forward in float32; each is measured if it is installed (the extra `bench`)."""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.harness.measure import Way
from bench.harness.work import Work, inputs
from bench.kernels.attention import exactly
from clearhead import kernels
from clearhead.kernels import Problem


def work(quick: bool) -> Iterator[Work]:
    for shape in ((1, 8, 512, 64),) if quick else ((1, 8, 512, 64), (1, 8, 2048, 64), (8, 8, 128, 64)):
        # Compiling takes longer than measuring: half a minute per shape.
        yield _row(shape, {name: make for name, make in PEERS.items() if not (quick and make is _flex)})


def _row(shape: tuple[int, ...], peers: dict[str, Callable[..., Way | str]]) -> Work:
    def make() -> dict[str, Way | str]:
        query, key, value = inputs(shape, torch.float32)
        problem = Problem(query, key, value, shape[-1] ** -0.5)
        ways: dict[str, Way | str] = {
            "ours": lambda: kernels.run(problem, kernel="native").out,
            "sdpa": lambda: F.scaled_dot_product_attention(query, key, value),
        }
        return ways | {name: peer(query, key, value) for name, peer in peers.items()}

    batch, heads, length, width = shape
    flops = 4.0 * batch * heads * length * length * width
    exact = partial(exactly, shape, torch.float32)
    return Work("other libraries, forward float32", f"{shape}", flops, torch.float32, make, exact)


def _flex(query: Tensor, key: Tensor, value: Tensor) -> Way | str:
    """torch's flex_attention, compiled for this shape before anything is timed."""
    if which(os.environ.get("CXX", "g++")) is None:
        return "no C++ compiler"
    compiled = _compiled_flex()

    def way() -> Tensor:
        with torch.no_grad():
            out: Tensor = compiled(query, key, value)
        return out

    way()
    return way


@cache
def _compiled_flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _onnxruntime(query: Tensor, key: Tensor, value: Tensor) -> Way | str:
    """ONNX Runtime's MultiHeadAttention, as a graph of this one node; it takes (B, L, H·D)."""
    if find_spec("onnxruntime") is None or find_spec("onnx") is None:
        return "onnxruntime is not installed"
    import onnxruntime
    from onnx import TensorProto, helper

    batch, heads, length, width = query.shape
    names = ("query", "key", "value")
    node = helper.make_node("MultiHeadAttention", names, ["out"], domain="com.microsoft", num_heads=heads)
    described = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, length, heads * width])
        for name in (*names, "out")
    }
    graph = helper.make_graph([node], "attention", [described[name] for name in names], [described["out"]])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its waiting threads would otherwise spin on the cores of whatever is measured next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        helper.make_model(graph, opset_imports=imports, ir_version=9).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    feed = {
        name: x.transpose(1, 2).flatten(2).contiguous().numpy()
        for name, x in zip(names, (query, key, value), strict=True)
    }

    def way() -> Tensor:
        return torch.from_numpy(session.run(None, feed)[0]).view(batch, length, heads, width).transpose(1, 2)

    return way


def _jax(query: Tensor, key: Tensor, value: Tensor) -> Way | str:
    """JAX's dot_product_attention, compiled; it takes (B, L, H, D)."""
    if find_spec("jax") is None:
        return "jax is not installed"
    import jax

    compiled = jax.jit(jax.nn.dot_product_attention)
    given = [jax.numpy.asarray(x.transpose(1, 2).contiguous().numpy()) for x in (query, key, value)]

    def way() -> Tensor:
        return torch.from_dlpack(compiled(*given).block_until_ready()).transpose(1, 2)

    way()
    return way


def _zentorch(query: Tensor, key: Tensor, value: Tensor) -> Way | str:
    """AMD's extension of torch, through its own operator: importing it changes no other function of torch."""
    if "AMD" not in cpu_vendor():
        return "zentorch is for AMD CPUs"
    if find_spec("zentorch") is None:
        return "zentorch is not installed; `make bench` installs the release for this torch on an AMD CPU"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which it uses
            import_module("zentorch")
        operator = torch.ops.zentorch.zentorch_sdpa
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # built for another torch
        return f"zentorch does not work with torch {torch.__version__}: {str(error).splitlines()[0]}"
    return lambda: operator(query, key, value)[0]


def cpu_vendor() -> str:
    """The vendor from /proc/cpuinfo, "AuthenticAMD" or "GenuineIntel"; on other systems the platform's description."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), platform.processor())


PEERS: dict[str, Callable[..., Way | str]] = {
    "flex_attention, compiled": _flex,
    "ONNX Runtime": _onnxruntime,
    "JAX": _jax,
    "zentorch": _zentorch,
}
