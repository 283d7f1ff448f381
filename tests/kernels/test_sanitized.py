"""The C++ kernels under the address and undefined-behaviour sanitizers, on buffers of exactly the right size."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
AVX2 = ["-mavx2", "-mfma"]
TARGETS = {"generic": (4, 4, []), "avx2": (8, 6, AVX2), "avx2w16": (16, 8, AVX2)}


@pytest.mark.stress
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    names = list(TARGETS) if platform.machine() == "x86_64" else ["generic"]
    (tmp_path / "targets.h").write_text("#define CLEARHEAD_TARGETS(X) " + " ".join(f"X({name})" for name in names))
    common = ["g++", "-std=gnu++17", "-g", "-O1", "-fopenmp", "-fsanitize=address,undefined", "-Wno-psabi"]
    common += ["-fno-sanitize-recover=all", f"-I{tmp_path}", f"-I{NATIVE}", "-c"]
    for name in names:
        lanes, rows, flags = TARGETS[name]
        defines = [f"-DTARGET={name}", f"-DLANES={lanes}", f"-DROWS={rows}"]
        subprocess.run([*common, *flags, *defines, NATIVE / "target.cpp", "-o", tmp_path / f"{name}.o"], check=True)
    for name in ("dispatch", "check"):
        subprocess.run([*common, NATIVE / f"{name}.cpp", "-o", tmp_path / f"{name}.o"], check=True)
    objects = [str(path) for path in sorted(tmp_path.glob("*.o"))]
    subprocess.run(["g++", "-fopenmp", "-fsanitize=address,undefined", *objects, "-o", tmp_path / "check"], check=True)
    done = subprocess.run([tmp_path / "check", "150"], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("150 cases") == len(names)
