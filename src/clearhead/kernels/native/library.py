"""The compiled library, `clearhead._native`: loaded once, None where it was not built. Only this file imports it."""

import platform
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def _load() -> Any:
    """The compiled module, or None where it was installed without a C++ compiler, or built from other sources.

    It is loaded after torch, so that both share torch's libgomp and its pool of threads.
    """
    try:
        module = import_module("clearhead._native")
    except ModuleNotFoundError:
        return None
    return module if hasattr(module, "Attention") else None


library = _load()
# Whether the library reads torch's tensors without Python: torch gives it a C interface (docs/decisions/0022).
reads_tensors: bool = library is not None and library.register_tensor_types(
    Tensor, torch.nn.Parameter, getattr(Tensor, "__dlpack_c_exchange_api__", None)
)


def cpu_features() -> frozenset[str]:
    """The instruction sets and the vendor of this CPU, by gcc's names, of those the library knows; empty without it.

    >>> cpu_features() >= {"avx2", "fma"} or "avx2" not in cpu_features()
    True
    """
    return frozenset() if library is None else frozenset(library.cpu_features())


def cpu_supports(features: str) -> bool:
    """Whether this CPU has every feature of a list such as "avx2,fma"; a name the library does not know counts as no.

    >>> cpu_supports("quantum")
    False
    """
    return library is not None and library.cpu_supports(features)


def cpu_name() -> str:
    """The CPU's model name, or what the platform calls it."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
