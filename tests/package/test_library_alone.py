"""`pip install clearhead` brings torch and numpy alone, and the library needs nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

import clearhead
from extra_libraries import libraries, requirements

ROOMS = ("masks", "kernels", "matrix", "multihead", "capture", "sandbox", "views")
NEEDS_AN_EXTRA = {
    "views.fonts",
    "views.plot",
    "views.media.figure",
    "views.media.in_terminal",
    "views.over_picture",
    "views.terminal",
    "views.terminal_comparison",
    "views.widget",
}  # by `needs`: see test_extras.py
TRITON = "kernels.triton."  # imported by its kernel once there is a CUDA tensor
EXTRAS = ("cli", "course", "views", "studio")
# A finder that refuses every library of the extras, and whatever else no installation is sure to have.
PROGRAM = """
import importlib, sys
from importlib.abc import MetaPathFinder

class Refusing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {refused!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Refusing())
for name in {modules!r}:
    importlib.import_module("clearhead." + name)
import torch, clearhead
query, key, value = (torch.randn(2, 3, 5, 7) for _ in range(3))
out, matrix = clearhead.attention(query, key, value, is_causal=True, return_matrix=True)
torch.testing.assert_close(out, matrix @ value)

class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]

block = Block().eval()
with clearhead.observe(block) as record:
    block(torch.randn(2, 5, 12))
assert list(record) == ["attention"] and record["attention"].shape == (2, 3, 5, 5), record
from clearhead.matrix.store import load, save
save(record, sys.argv[1])
torch.testing.assert_close(load(sys.argv[1])["attention"].to_dense(), record["attention"].to_dense())
record.to_html("page.html")
from clearhead import sandbox
assert sandbox.backend() is None or sandbox.run("print(6 * 7)").stdout == "42\\n"
"""


def modules() -> list[str]:
    """Every module of the library rooms that is there without an extra."""
    root = Path(clearhead.__file__).parent
    names = {path.stem for path in root.glob("*.py")} - {"__init__", "__main__", "console"}
    for room in ROOMS:
        for path in (root / room).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            if name not in NEEDS_AN_EXTRA and not name.startswith(TRITON):
                names.add(name)
    return sorted(names)


def test_the_package_requires_torch_and_numpy_alone() -> None:
    assert sorted(requirement.partition(">=")[0] for requirement in requirements(None)) == ["numpy", "torch"]


@pytest.mark.slow
def test_the_library_works_without_the_libraries_of_any_extra(tmp_path: Path) -> None:
    refused = set().union(*map(libraries, EXTRAS)) | {"pydantic", "markdown_it", "pygments", "click", "transformers"}
    assert {"typer", "rich", "fsrs", "fastapi", "matplotlib"} <= refused
    program = PROGRAM.format(refused=refused - {"numpy"}, modules=modules())
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "a"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
