"""Compile the Triton kernels for GPUs that need not be present: `python triton_builds.py`. Prints one JSON line each.

It runs in a separate process, because TRITON_INTERPRET takes effect when Triton is imported. The kernels, their
arguments and their blocks are those that `launch.py` would launch; only the launch itself is replaced.
"""

import argparse
import json
import math
import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from clearhead.kernels import Cells, Problem
from clearhead.kernels.second_pass import Wanted, allocate
from clearhead.kernels.triton import launch
from clearhead.kernels.triton.blocks import Blocks, candidates
from clearhead.kernels.triton.kernel import Triton

TYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.float16: "fp16",
         torch.uint8: "u8", torch.int32: "i32", torch.int64: "i64"}  # fmt: skip
CAPABILITIES = (80, 90)


class Signature:
    """The specialisation of a launch's arguments: their types, the constants, and the multiples of 16."""

    def __init__(self, kernel: Any, arguments: tuple[Any, ...]) -> None:
        self.constants: dict[tuple[int, ...], Any] = {}
        self.multiples: dict[tuple[int, ...], Any] = {}
        self._plain = {kernel.arg_names.index(name) for name in kernel.do_not_specialize}
        self.types = [self._type(argument, (place,)) for place, argument in enumerate(arguments)]

    def _type(self, argument: Any, path: tuple[int, ...]) -> Any:
        if isinstance(argument, tuple):
            return type(argument)(*(self._type(part, (*path, place)) for place, part in enumerate(argument)))
        special = path[0] not in self._plain
        if argument is None or (special and type(argument) is int and argument == 1):
            self.constants[path] = argument
            return "constexpr"
        if special and (isinstance(argument, Tensor) or (type(argument) is int and argument % 16 == 0)):
            self.multiples[path] = [["tt.divisibility", 16]]
        if isinstance(argument, Tensor):
            return "*" + TYPES[argument.dtype]
        return "fp32" if isinstance(argument, float) else "i32" if abs(argument) < 1 << 31 else "i64"


def stack(binary: bytes) -> int:
    """Return the bytes of a kernel's stack, to which registers are spilled."""
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    return max(map(int, re.findall(r"STACK:(\d+)", usage.stdout)))


def record(calls: list[Any]) -> None:
    """Make `Call.launch` record its launches instead of running them."""

    def launched(call: Any, kind: str, kernel: Any, programs: Any, *arguments: Any, **constants: Any) -> None:
        constants = {"WIDTH": call.width, "PRECISION": "ieee", **constants}
        calls.append((kind, call._bytes, kernel, arguments, constants))

    launch.Call.launch = launched


def problems() -> dict[str, Problem]:
    """Return problems with the fewest terms and the most, at the widths of common models."""

    def tensors(dtype: torch.dtype, width: int, heads: int = 4) -> list[Tensor]:
        return [torch.zeros(2, n, 128, width, dtype=dtype) for n in (heads, 2, 2)]

    per_head = torch.zeros(4, requires_grad=True)
    most = {"softcap": 2.0, "sinks": per_head, "alibi": per_head, "head_scale": per_head, "reach": (-9, 4),
            "allow": torch.ones(2, 1, 128, 128, dtype=torch.bool), "dropout_p": 0.6,
            "bias": torch.zeros(4, 128, 128, requires_grad=True)}  # fmt: skip
    return {
        "bfloat16, 64, causal": Problem(*tensors(torch.bfloat16, 64), 0.1, is_causal=True),
        "float16, 128, all terms": Problem(*tensors(torch.float16, 128), 0.1, **most),
        "bfloat16, 256, all terms": Problem(*tensors(torch.bfloat16, 256), 0.1, **most),
        "float32, 64, all terms": Problem(*tensors(torch.float32, 64), 0.1, **most),
        "float32, 128, soft cap": Problem(*tensors(torch.float32, 128), 0.1, softcap=2.0),
    }


def launches(problem: Problem) -> list[Any]:
    """Return every launch of a forward and a backward pass, and of the statistics with and after the forward pass."""
    calls: list[Any] = []
    record(calls)
    kernel = Triton()
    edges = torch.tensor([[0, 64], [64, 128]])
    wanted = Wanted(True, True, True, True, True, True, 0, True, 8, Cells(edges, edges))
    result = kernel.forward(problem)
    kernel.backward(problem, result, result.out, result.lse)
    in_forward = Wanted(True, True, True, True)
    kernel.forward_with(problem, in_forward, allocate(problem, in_forward))
    output = allocate(problem, wanted)
    kernel.statistics(problem, result.lse.float(), range(128), range(128), wanted, output)
    return calls


def builds(problem: Problem) -> list[tuple[Any, Blocks, int]]:
    """Return every (launch, blocks, capability), the smallest blocks of every kernel first."""
    smallest, others = [], []
    for call in launches(problem):
        *larger, least = candidates(call[0], call[1])
        smallest += [(call, least, capability) for capability in CAPABILITIES]
        others += [(call, blocks, capability) for blocks in larger for capability in CAPABILITIES]
    return smallest + others


def build(call: Any, blocks: Blocks, capability: int) -> dict[str, Any]:
    """Compile one kernel; return the resources of a GPU that it needs."""
    _, _, kernel, arguments, named = call
    made = Signature(kernel, arguments)
    types = made.types + ["constexpr"] * (len(kernel.arg_names) - len(made.types))
    types = dict(zip(kernel.arg_names, types, strict=True))
    constants = {**made.constants, **named, "ROWS": blocks.rows, "KEYS": blocks.keys}
    source = ASTSource(kernel, types, constants, made.multiples)
    options = {"num_warps": blocks.warps, "num_stages": blocks.stages, **launch.OPTIONS}
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    return {"kernel": kernel.fn.__name__, "blocks": blocks, "sm": capability,
            "shared": binary.metadata.shared, "stack": stack(binary.asm["cubin"])}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("names", nargs="*", help="problems; all by default")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="after which only the smallest blocks are built"
    )
    options = parser.parse_args()
    end = time.monotonic() + options.seconds
    for name, problem in problems().items():
        if options.names and name not in options.names:
            continue
        every = builds(problem)
        needed = len(CAPABILITIES) * len({id(call) for call, _, _ in every})
        for number, (call, blocks, capability) in enumerate(every):
            if number >= needed and time.monotonic() >= end:
                break
            print(json.dumps({"problem": name, **build(call, blocks, capability)}), flush=True)


if __name__ == "__main__":
    main()
