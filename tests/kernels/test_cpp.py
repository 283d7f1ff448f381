"""The C++ alone, against plain loops on buffers of exactly the right size: sanitized, and for Arm under an emulator."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

NATIVE = Path(__file__).parents[2] / "native"
AVX2 = ["-mavx2", "-mfma"]
# Name -> lanes, rows of the product, flags; as in native/CMakeLists.txt.
X86 = {
    "generic": (4, 4, []),
    "avx2": (8, 6, AVX2),
    "avx2w16": (16, 8, AVX2),
    "avx2bf16w16": (16, 8, [*AVX2, "-DPAIRS"]),
}
ARM = {"neon": (4, 8, []), "generic": (4, 4, [])}
ARM_COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
CASES = 150

pytestmark = pytest.mark.stress


def build(folder: Path, compiler: str, targets: dict[str, tuple[int, int, list[str]]], flags: list[str]) -> Path:
    """Compile every target and native/check.cpp into one program."""
    (folder / "targets.h").write_text("#define CLEARHEAD_TARGETS(X) " + " ".join(f"X({name})" for name in targets))
    common = [compiler, "-std=gnu++17", "-Wno-psabi", f"-I{folder}", f"-I{NATIVE}", *flags, "-c"]
    for name, (lanes, rows, own) in targets.items():
        defines = [f"-DTARGET={name}", f"-DLANES={lanes}", f"-DROWS={rows}"]
        subprocess.run([*common, *own, *defines, NATIVE / "target.cpp", "-o", folder / f"{name}.o"], check=True)
    for name in ("dispatch", "layer", "statistics", "check"):
        subprocess.run([*common, NATIVE / f"{name}.cpp", "-o", folder / f"{name}.o"], check=True)
    objects = [str(path) for path in sorted(folder.glob("*.o"))]
    subprocess.run([compiler, *flags, *objects, "-o", folder / "check"], check=True)
    return folder / "check"


def run(command: list[str | Path], targets: int) -> None:
    done = subprocess.run([*command, str(CASES)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{CASES} cases") == targets


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_sanitizers_find_nothing(tmp_path: Path) -> None:
    targets = X86 if platform.machine() == "x86_64" else ARM
    flags = ["-g", "-O1", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    run([build(tmp_path, "g++", targets, flags)], len(targets))


@pytest.mark.skipif(shutil.which(ARM_COMPILER) is None, reason=f"{ARM_COMPILER} is not installed")
@pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed")
def test_arm_gives_the_same_under_an_emulator(tmp_path: Path) -> None:
    program = build(tmp_path, ARM_COMPILER, ARM, ["-O2", "-static", "-ffp-contract=fast"])
    run([str(EMULATOR), program], len(ARM))
