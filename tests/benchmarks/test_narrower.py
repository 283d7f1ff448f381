"""A measurement as on a CPU with fewer instructions: its target, torch's instructions and the costs of its class."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from bench import narrower

from clearhead.kernels import targets
from clearhead.kernels.measured import cpu_classes

CHOSEN = """
import torch
from clearhead.kernels.measured import cpu_classes
from clearhead.kernels.native.cpu_targets import current, is_forced
from clearhead.kernels.native.library import cpu_family, cpu_features
target, _ = current(torch.bfloat16)
names = [each.name for each in cpu_classes.of(target, cpu_features(), cpu_family())]
print(target.name, is_forced(), torch.backends.cpu.get_cpu_capability(), *names, sep="|")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("cpu", "capability"), [("avx2", "AVX2"), ("avx512", "AVX512")])
def test_a_narrower_cpu_has_its_own_target_and_costs(cpu: str, capability: str, tmp_path: Path) -> None:
    if not any(target.name == cpu and target.runs_here for target in targets()):
        pytest.skip(f"this CPU has no target {cpu}")
    (tmp_path / "chosen.py").write_text(CHOSEN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CLEARHEAD_KERNEL")}
    done = subprocess.run(
        [sys.executable, "-m", "bench.narrower", cpu, "chosen"], capture_output=True, text=True, timeout=120,
        check=True, env=environment | {"PYTHONPATH": os.pathsep.join((str(tmp_path), *sys.path))},
    )  # fmt: skip
    name, forced, torchs, *classes = done.stdout.strip().split("|")
    assert (name, forced, torchs) == (cpu, "False", capability)
    kinds = {each.name: each.needs for each in cpu_classes.CLASSES}
    assert classes
    assert not any(need.startswith(narrower.CPUS[cpu].hidden) for name in classes for need in kinds[name])


def test_a_narrower_cpu_lacks_every_feature_that_is_hidden() -> None:
    library = SimpleNamespace(
        cpu_features=lambda: ["avx2", "avx512f", "avx512bf16", "amx-tile", "amd"],
        cpu_supports=lambda names: True,
        cpu_family=lambda: 25,
    )
    narrower.narrow(library, narrower.CPUS["avx512"])
    assert library.cpu_features() == ["avx2", "avx512f", "intel"]
    assert library.cpu_family() == 6
    assert library.cpu_supports("avx2,avx512f")
    assert not library.cpu_supports("avx2,avx512bf16")
    assert not library.cpu_supports("amx-tile")
