"""Which device the tests of tensors run on: `--device cpu` (the default), `cuda` or `mps`.

A test that takes it makes its tensors on the CPU, so that they are the same everywhere, moves them with `placed`, and
compares on the CPU. On the CPU the Triton kernels run in Triton's interpreter, where Triton is installed.
"""

import os
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from clearhead.kernels import Problem

_chosen = torch.device(os.environ.get("CLEARHEAD_TEST_DEVICE", "cpu"))  # of conftest.py, which imports no torch


def missing() -> str | None:
    """Why the chosen device is not here; None if it is."""
    backend = {"cpu": torch.cpu, "cuda": torch.cuda, "mps": torch.mps}[_chosen.type]
    return None if backend.is_available() else f"this machine has no {_chosen.type} device"


@pytest.fixture
def device() -> torch.device:
    """The chosen device; skips the test where this machine has none."""
    if reason := missing():
        pytest.skip(reason)
    return _chosen


def placed(problem: Problem) -> Problem:
    """The same problem on the chosen device; gradients flow back through the move."""
    if _chosen.type == "cpu":
        return problem
    own = {name: tensor.to(_chosen) for name, tensor in problem.attention.tensors().items()}
    query, key, value = (_moved(tensor) for tensor in (problem.query, problem.key, problem.value))
    return problem.change(query=query, key=key, value=value, **own)


def _moved(tensor: Tensor) -> Tensor:
    """On the chosen device at the strides it had, gaps and shared entries included."""
    if tensor.requires_grad or tensor.numel() == 0:
        return tensor.to(_chosen)
    storage = tensor.new_empty(0).set_(tensor.untyped_storage()).to(_chosen)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed: pip install 'clearhead[gpu]'"
)
