"""The native library's CPU targets as test parameters: all of them on every machine, skipped if they cannot run."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest

from clearhead import kernels
from clearhead.kernels.native.cpu_targets import current

needs_native = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")


def on(target: kernels.Target, prefix: str = "") -> object:
    """Return one target as a parameter, which a CPU without its instructions skips."""
    cannot = pytest.mark.skipif(not target.runs_here, reason=f"this CPU cannot run the target {target.name}")
    return pytest.param(prefix + target.name, marks=cannot)


@contextmanager
def chosen(name: str) -> Iterator[str]:
    """Yield the kernel of a name such as "reference" or "native-avx2", with the target forced if the name has one."""
    kernel, _, target = name.partition("-")
    with kernels.target(target) if target else nullcontext():
        yield kernel


# Parametrize by these, so that the number of tests is the same on every CPU.
TARGETS = [on(target) for target in kernels.targets()]
# For tests that loop over the targets instead.
HERE = [target.name for target in kernels.targets() if target.runs_here]


@pytest.fixture
def own_target() -> Iterator[str]:
    """Force the best target, so that no measured cost and no rule of this CPU sends a call to torch's function."""
    best, _ = current()
    assert best is not None
    with kernels.target(best.name):
        yield best.name
