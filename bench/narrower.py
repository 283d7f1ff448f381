"""Run a module as on a CPU with fewer instructions: `python -m bench.narrower avx2 bench.sweep --out /tmp/sweep.json`.

Unlike CLEARHEAD_KERNEL_TARGET, which never gives a call to torch, this keeps the costs of the narrower CPU's class. It
replaces what the native library reports of the CPU, so that kernels, plan and costs are chosen as there. Caches, clock
and widths of loads stay those of this CPU: say so beside every figure.
"""

import argparse
import os
import runpy
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from typing import Any


@dataclass(frozen=True)
class Narrower:
    """A CPU to stand in for.

    Attributes:
        hidden: beginnings of the features that it lacks.
        environment: what keeps torch from these; read when torch is imported.
        vendor: of this CPU if empty.
        family: as /proc/cpuinfo numbers it; of this CPU if None.
    """

    hidden: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    vendor: str = ""
    family: int | None = None


CPUS = {
    "avx2": Narrower(
        ("avx512", "amx"),
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ),
    # Torch keeps its bfloat16 products there, which such a CPU may have: the harder comparison.
    "avx512": Narrower(("avx512bf16", "amx"), vendor="intel", family=6),
}
VENDORS = ("amd", "intel")


def shown(features: list[str], cpu: Narrower) -> list[str]:
    """The features that are left of this CPU's.

    >>> shown(["avx2", "avx512f", "avx512bf16", "amd"], CPUS["avx512"])
    ['avx2', 'avx512f', 'intel']
    """
    left = [name for name in features if not name.startswith(cpu.hidden)]
    return [name for name in left if name not in VENDORS] + [cpu.vendor] if cpu.vendor else left


def narrow(library: Any, cpu: Narrower) -> None:
    """Let the native library report only what such a CPU has, before clearhead asks it."""
    left, supports = shown(library.cpu_features(), cpu), library.cpu_supports
    library.cpu_features = lambda: left
    library.cpu_supports = lambda names: (
        supports(names) and not any(name.startswith(cpu.hidden) for name in names.split(","))
    )
    if cpu.family is not None:
        library.cpu_family = lambda: cpu.family


def load(name: str) -> Any:
    """Import the native library without its package, which asks the library about the CPU at once."""
    import torch  # noqa: F401 - the library shares torch's threads

    package = find_spec("clearhead")
    places = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec(name, places)
    if spec is None or spec.loader is None:
        raise SystemExit("narrower: the native library was not built. Run `make setup`.")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.narrower", description=__doc__)
    parser.add_argument("cpu", choices=CPUS, help="the CPU to stand in for")
    parser.add_argument("module", help="the module to run, such as bench.sweep")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="its arguments")
    options = parser.parse_args()
    cpu = CPUS[options.cpu]
    os.environ.update(cpu.environment)
    narrow(load("clearhead._native"), cpu)
    sys.argv = [options.module, *options.arguments]
    runpy.run_module(options.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
