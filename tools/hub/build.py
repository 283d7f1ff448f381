"""Build a kernel repository for the Hugging Face hub: `make hub` writes it to build/hub.

    build/hub/
      README.md
      build/torch213-cxx11-cpu-x86_64-linux/   with the native library of this machine
      build/torch-universal/                   without it, on torch's kernels; also for a torch with CUDA

Each variant has the kernel (attention.py as its `__init__.py`) and the rooms of the package that it needs.
"""

import argparse
import importlib.util
import json
import platform
import shutil
from pathlib import Path

import torch

import clearhead

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "clearhead"
ROOMS = ("kernels", "masks", "matrix", "multihead", "spec")  # and the modules below them
NAME = "clearhead-attention"


def build(folder: Path) -> list[str]:
    """Write the repository; return its variants."""
    shutil.rmtree(folder, ignore_errors=True)
    native = importlib.util.find_spec("clearhead._native")
    variants = {"torch-universal": None}
    if native is not None and native.origin is not None:
        version = "".join(torch.__version__.split("+")[0].split(".")[:2])
        variants[f"torch{version}-cxx11-cpu-{platform.machine()}-{platform.system().lower()}"] = Path(native.origin)
    for variant, library in variants.items():
        _write(folder / "build" / variant, variant, library)
    shutil.copy(Path(__file__).with_name("card.md"), folder / "README.md")
    return list(variants)


def _write(place: Path, variant: str, library: Path | None) -> None:
    bundled = place / "bundled" / "clearhead"
    bundled.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("attention.py"), place / "__init__.py")
    for path in SOURCE.glob("*.py"):
        shutil.copy(path, bundled)
    skipped = shutil.ignore_patterns("__pycache__", "*.md", "build_failure.txt")
    for room in ROOMS:
        shutil.copytree(SOURCE / room, bundled / room, ignore=skipped)
    if library is not None:
        shutil.copy(library, bundled)
    shutil.copy(ROOT / "LICENSE", place)
    metadata = {
        "id": f"_{NAME.replace('-', '_')}_{clearhead.__version__.replace('.', '_')}",
        "name": NAME,
        "version": 1,
        "license": "Apache-2.0",
        "python-depends": [],
        "backend": {"type": "cpu"},
    }
    (place / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "build" / "hub")
    place = parser.parse_args().folder
    print(f"hub: {place}: {', '.join(build(place))}")
