"""The build backend: what a wheel has without a library, and with one from each compiler."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import scripts

ROOT = Path(__file__).parents[2]
FAILURE = "clearhead/kernels/native/build_failure.txt"

NO_COMPILER = """-- The CXX compiler identification is unknown
CMake Error at CMakeLists.txt:2 (project):
  No CMAKE_CXX_COMPILER could be found.
"""
OLD_CMAKE = """CMake Error at CMakeLists.txt:14 (find_package):
  Could not find a package configuration file provided by "nanobind"
"""
GCC = """[3/20] Building CXX object target.cpp.o
FAILED: target.cpp.o
/src/vector/shuffle.h:19:10: error: use of undeclared identifier '__builtin_shuffle'
    v[i] = __builtin_shuffle(a, b, upper);
           ^
1 error generated.
ninja: build stopped: subcommand failed.
"""
LINKER = "/usr/bin/ld: cannot find -lgomp\ncollect2: error: ld returned 1 exit status\n"


@pytest.fixture(scope="module")
def backend():
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    return scripts.load("tools/backend/clearhead_build.py")


@pytest.mark.parametrize(
    ("output", "first"),
    [
        (NO_COMPILER, "no C++ compiler was found"),
        (
            OLD_CMAKE,
            'CMakeLists.txt:14 (find_package): Could not find a package configuration file provided by "nanobind"',
        ),
        (GCC, "shuffle.h:19:10: error: use of undeclared identifier"),
        (LINKER, "collect2: error: ld returned 1 exit status"),
        ("", "RuntimeError: disk full"),
    ],
)
def test_the_reason_of_a_failed_build_is_its_own_first_error(backend, output, first):
    assert first in backend.reason(output, RuntimeError("disk full")).splitlines()[0]


def test_the_reason_keeps_what_the_compiler_said_before_and_after_its_error(backend):
    said = backend.reason(GCC, SystemExit(1))
    assert "FAILED: target.cpp.o" in said
    assert "__builtin_shuffle(a, b, upper)" in said


def test_the_reason_says_how_to_build_again_where_pip_keeps_the_wheel_in_its_cache(backend):
    """`pip install clearhead` with a compiler took the wheel that it had built without one."""
    assert "--force-reinstall --no-cache-dir" in backend.reason(NO_COMPILER, SystemExit(1))


def test_doctor_prints_the_reason_that_the_build_wrote_down(monkeypatch, tmp_path):
    from clearhead.cli import doctor
    from clearhead.kernels.native import kernel, library

    written = tmp_path / "build_failure.txt"
    written.write_text("its build failed: x.h:3:1: error: no such thing\n  the line of the source\n")
    monkeypatch.setattr(library, "BUILD_FAILURE", written)
    monkeypatch.setattr(library, "import_module", _missing)
    module, missing = library._load()
    assert module is None
    assert missing.endswith("was not built: its build failed: x.h:3:1: error: no such thing")
    monkeypatch.setattr(library, "library", None)
    monkeypatch.setattr(kernel, "missing", missing)
    report = doctor.as_data([f for f in doctor._kernels() if f.section == "Kernels"])["Kernels"]
    assert report["native"] == {"works": False, "found": missing}
    assert "the line of the source" in report["native build"]["found"]


def _missing(name):
    raise ModuleNotFoundError(name)


def test_a_library_that_does_not_load_says_which_one_it_needs(monkeypatch):
    from clearhead.kernels.native import library

    def fails(name):
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(library, "import_module", fails)
    assert library._load() == (
        None,
        "the native library cannot be loaded: libgomp.so.1: cannot open shared object file",
    )


@pytest.mark.slow
def test_every_data_file_of_the_sources_goes_into_the_sdist(backend, sdist):
    with tarfile.open(sdist) as archive:
        carried = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "src", "native", "tools/backend"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout, so what it should carry is not known")
    here = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    bundle = "src/clearhead/studio/static/codemirror.js"
    assert here - carried == set()
    assert bundle in carried or not (ROOT / bundle).exists()


@pytest.fixture(scope="module")
def sdist(backend, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    code = (
        f"import sys; sys.path.insert(0, 'tools/backend'); import clearhead_build as b; b.build_sdist({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    return next(folder.glob("*.tar.gz"))


def build(sdist, folder, **environment):
    """Build a wheel from the sdist, with this environment's build requirements; the wheel and what pip printed."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        folder,
        sdist,
    ]
    done = subprocess.run(
        [str(word) for word in command], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return next(Path(folder).glob("*.whl")), done.stdout + done.stderr


@pytest.mark.stress
@pytest.mark.parametrize(
    ("compiler", "said"), [("no-such-compiler", "no C++ compiler was found"), ("/bin/false", "its build failed: ")]
)
def test_without_a_compiler_that_works_the_wheel_remembers_why(sdist, tmp_path, compiler, said):
    wheel, printed = build(sdist, tmp_path, CXX=compiler)
    assert "the native library was NOT built" in printed
    assert printed.count("--no-cache-dir") >= 1
    with zipfile.ZipFile(wheel) as archive:
        assert not [file for file in archive.namelist() if "_native." in file]
        assert archive.read(FAILURE).decode().startswith(said)


@pytest.mark.stress
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_each_compiler_builds_the_library_without_a_warning(sdist, tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    wheel, printed = build(sdist, tmp_path, CXX=compiler, CLEARHEAD_REQUIRE_NATIVE="1")
    assert "warning:" not in printed
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "package")  # noqa: S202  # our own wheel
        assert FAILURE not in archive.namelist()
    code = (
        "import json, torch, clearhead; from clearhead.kernels import available;"
        "print(json.dumps([clearhead.__file__, {k.kernel: k.available for k in available()}]));"
        "q, k, v = torch.randn(3, 1, 2, 37, 16, dtype=torch.float64).unbind();"
        "expected = torch.softmax(q @ k.mT / 4, -1) @ v;"
        "assert (clearhead.attention(q, k, v, kernel='native') - expected).abs().max() < 1e-13"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-S",
            "-c",
            "import sys; sys.path += " + repr([str(tmp_path / "package"), *sys.path]) + ";" + code,
        ],
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert run.returncode == 0, run.stderr
    place, able = json.loads(run.stdout.splitlines()[-1])
    assert place.startswith(str(tmp_path))
    assert able["native"]
