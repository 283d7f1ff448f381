"""The C++ alone, compared with plain loops on buffers of exact size: with sanitizers, and for Arm in an emulator."""

import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from clearhead.kernels.native.library import cpu_features

NATIVE = Path(__file__).parents[3] / "native"


def needs(*features: str) -> list[str]:
    """The compiler's flags for a target that needs some features of the CPU."""
    return [*(f"-m{feature}" for feature in features), f"-DNEEDS={','.join(features)}"]


ANY = needs()
AVX2 = needs("avx2", "fma")
AVX512_FEATURES = ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl")
AVX512 = [*needs(*AVX512_FEATURES), "-mprefer-vector-width=512"]
AVX512BF16 = [*needs(*AVX512_FEATURES, "avx512bf16"), "-mprefer-vector-width=512"]
AMX = [*needs(*AVX512_FEATURES, "avx512bf16", "amx-tile", "amx-bf16"), "-mprefer-vector-width=512"]
# Name -> lanes and rows of the product, the same for float64 (None: the previous target's), flags; as in
# native/CMakeLists.txt.
Shape = tuple[int, int]
X86: dict[str, tuple[Shape, Shape | None, list[str]]] = {
    "generic": ((4, 4), (4, 2), ANY),
    "avx2": ((8, 6), (4, 6), AVX2),
    "avx2w16": ((16, 8), (8, 8), AVX2),
    "avx2bf16w16": ((16, 8), None, [*AVX2, "-DPAIRS"]),
    "amxmodel": ((16, 8), None, [*AVX2, "-DTILES", "-DTILE_MODEL"]),
}
# Those that run only on a CPU with the instructions, each with the feature that tells.
X86_WIDE: dict[str, tuple[str, tuple[Shape, Shape | None, list[str]]]] = {
    "avx512": ("avx512vl", ((16, 8), (8, 8), AVX512)),
    "avx512bf16": ("avx512bf16", ((16, 8), None, [*AVX512BF16, "-DPAIRS"])),
    "amx": ("amx-bf16", ((16, 8), None, [*AMX, "-DTILES"])),
}
ARM: dict[str, tuple[Shape, Shape | None, list[str]]] = {
    "neon": ((4, 8), (4, 4), ANY),
    "generic": ((4, 4), (4, 2), ANY),
}
ARM_COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
CASES = 150

pytestmark = pytest.mark.stress


def build(
    folder: Path, compiler: str, targets: dict[str, tuple[Shape, Shape | None, list[str]]], flags: list[str]
) -> Path:
    """Compile every target and native/check.cpp into one program."""
    (folder / "targets.h").write_text("#define CLEARHEAD_TARGETS(X) " + " ".join(f"X({name})" for name in targets))
    common = [compiler, "-std=gnu++17", "-Wno-psabi", f"-I{folder}", f"-I{NATIVE}", *flags, "-c"]
    wide = ""
    for name, (floats, doubles, own) in targets.items():
        wide = name if doubles else wide
        for source, shape in (("target", floats), ("target_f64", doubles)):
            if shape is None:
                continue
            defines = [f"-DTARGET={name}", f"-DDOUBLES_OF={wide}", f"-DLANES={shape[0]}", f"-DROWS={shape[1]}"]
            object_file = folder / f"{name}_{source}.o"
            subprocess.run(
                [*common, *own, *defines, NATIVE / "targets" / f"{source}.cpp", "-o", object_file], check=True
            )
    for source in (*sorted((NATIVE / "dispatch").glob("*.cpp")), NATIVE / "check.cpp"):
        subprocess.run([*common, source, "-o", folder / f"{source.stem}.o"], check=True)
    objects = [str(path) for path in sorted(folder.glob("*.o"))]
    subprocess.run([compiler, *flags, *objects, "-o", folder / "check"], check=True)
    return folder / "check"


def run(command: list[str | Path], targets: int) -> None:
    done = subprocess.run([*command, str(CASES)], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"{CASES} cases") == targets


def here() -> dict[str, tuple[Shape, Shape | None, list[str]]]:
    """Every x86 target that this CPU can run."""
    return X86 | {name: target for name, (feature, target) in X86_WIDE.items() if feature in cpu_features()}


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")
def test_the_sanitizers_report_nothing(tmp_path: Path) -> None:
    targets = here() if platform.machine() == "x86_64" else ARM
    flags = ["-g", "-O1", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    run([build(tmp_path, "g++", targets, flags)], len(targets))


@pytest.mark.skipif(shutil.which(ARM_COMPILER) is None, reason=f"{ARM_COMPILER} is not installed")
@pytest.mark.skipif(EMULATOR is None, reason="qemu-aarch64 is not installed")
def test_arm_passes_its_check_in_an_emulator(tmp_path: Path) -> None:
    program = build(tmp_path, ARM_COMPILER, ARM, ["-O2", "-static", "-ffp-contract=fast"])
    run([str(EMULATOR), program], len(ARM))
