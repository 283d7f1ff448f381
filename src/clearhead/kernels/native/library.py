"""The compiled library, `clearhead._native`: loaded once, None where it was not built. Only this file imports it."""

import platform
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BUILD_FAILURE = Path(__file__).with_name("build_failure.txt")  # written by tools/backend/clearhead_build.py


def _load() -> tuple[Any, str]:
    """Return the compiled module and "", or None and why there is none.

    It is loaded after torch, so that both share torch's libgomp and its pool of threads.
    """
    try:
        module = import_module("clearhead._native")
    except ModuleNotFoundError:
        first = build_failure().partition("\n")[0]
        return None, f"the native library was not built: {first or 'the package was installed without building it'}"
    except ImportError as error:  # a shared library that it needs is missing
        return None, f"the native library cannot be loaded: {error}"
    if not hasattr(module, "cpu_family"):
        return None, "the native library was built from other sources. Install clearhead again"
    return module, ""


def build_failure() -> str:
    """Return what the build wrote down when the library failed to build: a line, and the compiler's own. Else ""."""
    return BUILD_FAILURE.read_text(encoding="utf-8").strip() if BUILD_FAILURE.is_file() else ""


library, missing = _load()  # the module or None, and why there is none
# Each returns a true value while a mode, a transform, a tracer or autocast has to see a call. The library calls them
# before each call on the fast path, unless it can read the dispatch state below.
WATCHERS = (
    torch._C._len_torch_function_stack,
    torch._C._len_torch_dispatch_stack,
    torch._C._functorch.peek_interpreter_stack,
    torch._C._is_tracing,
    torch._C._is_any_autocast_enabled,
)
# Whether the library reads torch's tensors without Python: torch gives it a C interface (docs/decisions/0022).
reads_tensors: bool = library is not None and library.register_torch(
    Tensor, torch.nn.Parameter, getattr(Tensor, "__dlpack_c_exchange_api__", None), WATCHERS, torch.is_grad_enabled,
    torch.get_num_threads,
)  # fmt: skip


def _flips(word: int, is_on: Any, switch: Any) -> bool:
    """Return whether a word of this thread's dispatch state changes while something is on instead of off."""
    was_on, before = is_on(), library.dispatch_state()[word]
    switch(not was_on)
    try:
        return bool(library.dispatch_state()[word] != before)
    finally:
        switch(was_on)


def _read_dispatch_state() -> bool:
    """Let the library read this thread's dispatch state, if modes and autocast change it as in torch 2.13."""
    if not reads_tensors or library.dispatch_state() is None:
        return False
    for key in (torch._C.DispatchKey.Python, torch._C.DispatchKey.FuncTorchDynamicLayerFrontMode):
        is_on = partial(torch._C._dispatch_tls_is_dispatch_key_included, key)
        if not _flips(0, is_on, partial(torch._C._dispatch_tls_set_dispatch_key_included, key)):
            return False
    if not _flips(1, partial(torch.is_autocast_enabled, "cpu"), partial(torch.set_autocast_enabled, "cpu")):
        return False
    return bool(library.read_dispatch_state(True))


# Whether it does, instead of asking WATCHERS, which takes 2 µs behind a backward pass.
reads_dispatch_state = _read_dispatch_state()


def cpu_features() -> frozenset[str]:
    """The instruction sets and the vendor of this CPU, by gcc's names, of those the library knows; empty without it.

    >>> cpu_features() >= {"avx2", "fma"} or "avx2" not in cpu_features()
    True
    """
    return frozenset() if library is None else frozenset(library.cpu_features())


def cpu_family() -> int:
    """The family of an x86 CPU as its maker numbers them, 25 for an AMD Zen 3 or 4, 26 for a Zen 5; 0 if not known.

    >>> cpu_family() >= 0
    True
    """
    return 0 if library is None else int(library.cpu_family())


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
