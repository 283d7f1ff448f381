"""Each program of bench/ starts: `--help` names the command that runs it."""

from pathlib import Path

import pytest

import fresh

pytest.importorskip("rich", reason="the bench prints with Rich: pip install 'clearhead[cli]'")

BENCH = Path(__file__).parents[2] / "bench"
# Processes that a program starts for itself, which read what it sends.
STARTED_BY_OTHERS = {"bench.kernels.lengths", "bench.studio.learners"}
PROGRAMS = sorted(
    ".".join(path.relative_to(BENCH.parent).with_suffix("").parts).removesuffix(".__main__")
    for path in BENCH.rglob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)
RUN = """
import runpy, sys
name = sys.argv[1]
sys.argv[1:] = ["--help"]
sys.path.insert(0, "")
runpy.run_module(name, run_name="__main__", alter_sys=True)
"""


def test_all_programs_are_tried() -> None:
    assert {"bench", "bench.sweep", "bench.studio.classroom", *STARTED_BY_OTHERS} <= set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("program", [name for name in PROGRAMS if name not in STARTED_BY_OTHERS])
def test_a_program_says_how_it_is_run(program: str) -> None:
    if program.startswith("bench.studio."):
        pytest.importorskip("fastapi", reason="the studio is not installed: pip install 'clearhead[studio]'")
    done = fresh.run(RUN, program, folder=BENCH.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python -m {program} ")
